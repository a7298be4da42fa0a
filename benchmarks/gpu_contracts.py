"""What must hold of a training step beside its speed: the same bits twice, and no break in a compiled graph."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor

from benchmarks.findings import Findings, Goal, Table
from benchmarks.gpu_correctness import fixed_weights
from benchmarks.gpu_encoder import Tokens, Training, autocast
from benchmarks.stacks import Size, Stack, grids_of, scan_stack
from benchmarks.timing import interleaved
from cellvim_kernels import add_rms_norm, pooled_mixer

STEPS = 2
COMPILED_TOLERANCE = 1e-3
"""Relative, in float32: a compiler may sum in another order."""


def train_twice(findings: Findings, shape: Tokens, size: Size, device: torch.device) -> None:
    """Take the same training steps twice, and compare every weight and gradient bit by bit."""
    results = [_trained(shape, size, device) for _ in range(2)]
    differing = sum(not torch.equal(first, second) for first, second in zip(*results, strict=True))
    claim = f"tensors that differ after {STEPS} training steps from the same start, of {len(results[0])}: 0"
    findings.goals.append(Goal(claim, differing, differing == 0, is_required=True))


def compile_whole(findings: Findings, shape: Tokens, size: Size, device: torch.device) -> None:
    """Compile an encoder whole, forward and backward, without a break in its graph."""
    stack = _stack(shape, size).to(device)
    tokens = shape.draw(size.width, device)
    compiled = torch.compile(stack, fullgraph=True, dynamic=False)
    expected = _outputs_and_gradients(stack, tokens, stack, is_bf16=False)
    actual = _outputs_and_gradients(compiled, tokens, stack, is_bf16=False)
    worst = max(
        float((mine - truth).norm() / truth.norm().clamp(min=1e-12))
        for mine, truth in zip(actual, expected, strict=True)
    )
    claim = f"compiled with fullgraph, largest relative difference: below {COMPILED_TOLERANCE:g}"
    findings.goals.append(Goal(claim, worst, worst < COMPILED_TOLERANCE, is_required=True))
    runs = {
        name: partial(_outputs_and_gradients, model, tokens, stack, is_bf16=True)
        for name, model in (("not compiled", stack), ("compiled whole", compiled))
    }
    times = interleaved(runs, device, turns=10, seconds=5)
    title = f"Forward and backward, L = {shape.length}, batch {shape.batch}, {size.depth} blocks, bf16"
    findings.tables.append(
        Table(title, ("variant", "ms"), [[name, str(time)] for name, time in times.items()])
    )
    torch.compiler.reset()


def _stack(shape: Tokens, size: Size) -> Stack:
    return scan_stack(size, grids_of(shape.rows, shape.cols, shape.channels), pooled_mixer, add_rms_norm)


def _trained(shape: Tokens, size: Size, device: torch.device) -> list[Tensor]:
    training = Training(_stack(shape, size).to(device), shape.draw(size.width, device))
    losses = [training.step() for _ in range(STEPS)]
    return [*losses, *(each.detach().clone() for each in training.kept())]


def _outputs_and_gradients(
    model: Callable[[Tensor], Tensor], tokens: Tensor, stack: Stack, *, is_bf16: bool
) -> list[Tensor]:
    with autocast(tokens.device) if is_bf16 else nullcontext():
        output = model(tokens)
    gradients = torch.autograd.grad(output, list(stack.parameters()), fixed_weights(output))
    return [output.detach().float(), *gradients]
