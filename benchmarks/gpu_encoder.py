"""A whole encoder, forward and training step: cellvim, the eager composition, attention, and unpooled scans."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend

from benchmarks.eager import Parts, eager_pooled_mixer, kernel_parts
from benchmarks.findings import Cell, Findings, Goal, Table, at_least, at_most
from benchmarks.stacks import Size, Stack, attention_stack, grids_of, scan_stack
from benchmarks.timing import Failure, Run, Timing, give_back, interleaved, peak_mib, time_graph
from cellvim_kernels import add_rms_norm, pooled_mixer

CELLVIM, EAGER, EAGER_COMPILED = "FastVim, cellvim", "FastVim, eager", "FastVim, eager compiled"
VIM, VIM_EAGER = "Vim unpooled, cellvim", "Vim unpooled, eager"
VITS = VIT_FLASH, VIT_COMPILED, VIT_CUDNN = "ViT, flash", "ViT, compiled", "ViT, cuDNN"
LONG_TOKENS = 6272

Make = Callable[[], Stack]


@dataclass(frozen=True)
class Tokens:
    """Images at a time, and the grid of tokens of each."""

    batch: int
    rows: int
    cols: int
    channels: int

    @property
    def length(self) -> int:
        return self.rows * self.cols * self.channels

    def draw(self, width: int, device: torch.device) -> Tensor:
        generator = torch.Generator(device).manual_seed(0)
        return torch.randn(self.batch, self.length, width, generator=generator, device=device)


@dataclass(frozen=True)
class Speed:
    """One variant: launched kernel by kernel, as a CUDA graph, and the memory it takes."""

    launched: Timing | Failure
    graph: Timing | Failure | None
    peak_mib: float | Failure | None

    @property
    def best(self) -> float | None:
        """Milliseconds in the faster of both ways."""
        return min(self._times.values(), default=None)

    @property
    def best_way(self) -> str:
        """How it was launched when it was fastest."""
        return min(self._times, key=self._times.__getitem__)

    @property
    def _times(self) -> dict[str, float]:
        ways = {"launched": self.launched, "CUDA graph": self.graph}
        return {way: time.median for way, time in ways.items() if isinstance(time, Timing)}

    @property
    def failures(self) -> set[str]:
        return {
            each.reason for each in (self.launched, self.graph, self.peak_mib) if isinstance(each, Failure)
        }


def time_forward(findings: Findings, shapes: Sequence[Tokens], size: Size, device: torch.device) -> None:
    """Time inference of all variants."""
    parts = kernel_parts()
    for shape in shapes:
        stacks = {name: make() for name, make in variants(shape, size, parts).items()}
        tokens = shape.draw(size.width, device)
        runs = {name: partial(infer, stack.to(device), tokens) for name, stack in stacks.items()}
        speeds = measure([runs], partial(_weights_of, stacks), device)
        findings.tables.append(speed_table("inference", shape, size, parts, speeds))
        what = f"inference, L = {shape.length}"
        findings.goals.append(faster_than_eager(what, speeds, parts, 3))
        if shape.length == LONG_TOKENS:
            findings.goals.append(faster_than_vit(what, speeds, 2))
        _forget(device)


def time_training(findings: Findings, shapes: Sequence[Tokens], size: Size, device: torch.device) -> None:
    """Time forward, backward and AdamW of all variants, and count their memory."""
    parts = kernel_parts()
    for shape in shapes:
        trainings = {
            name: Training(make().to(device), shape.draw(size.width, device))
            for name, make in variants(shape, size, parts).items()
        }
        pooled = {name: training.step for name, training in trainings.items() if name not in (VIM, VIM_EAGER)}
        unpooled = {name: training.step for name, training in trainings.items() if name not in pooled}
        speeds = measure([pooled, unpooled], partial(_kept_by, trainings), device)
        findings.tables.append(speed_table("training step", shape, size, parts, speeds))
        what = f"training step, L = {shape.length}"
        findings.goals.append(faster_than_eager(what, speeds, parts, 2.5))
        findings.goals.append(smaller_than_eager(what, speeds, parts, 0.5))
        trainings.clear()
        _forget(device)


def variants(shape: Tokens, size: Size, parts: Parts) -> dict[str, Make]:
    """Everything that is compared on the same tokens."""
    grid = shape.rows, shape.cols, shape.channels
    pooled, unpooled = grids_of(*grid), grids_of(*grid, is_pooled=False)
    eager = partial(eager_pooled_mixer, parts=parts)
    make_eager = partial(scan_stack, size, pooled, eager, parts.add_rms_norm)
    make_vit = partial(attention_stack, size, pooled)
    chosen: dict[str, Make] = {
        EAGER: make_eager,
        EAGER_COMPILED: partial(_compiled, make_eager),
        CELLVIM: partial(scan_stack, size, pooled, pooled_mixer, add_rms_norm),
        VIT_FLASH: partial(make_vit, SDPBackend.FLASH_ATTENTION),
        VIT_CUDNN: partial(make_vit, SDPBackend.CUDNN_ATTENTION),
        VIT_COMPILED: partial(_compiled, make_vit),
        VIM: partial(scan_stack, size, unpooled, pooled_mixer, add_rms_norm),
    }
    if parts.has_scan_kernel:
        # In plain torch it takes thousands of steps per layer.
        chosen[VIM_EAGER] = partial(scan_stack, size, unpooled, eager, parts.add_rms_norm)
    return chosen


def infer(stack: Stack, tokens: Tensor) -> Tensor:
    """Run in bf16 where cellvim does, without a way back."""
    with torch.no_grad(), autocast(tokens.device):
        result: Tensor = stack(tokens)
    return result


class Training:
    """A model, its optimizer, and a target that it is drawn to."""

    def __init__(self, stack: Stack, tokens: Tensor) -> None:
        self.stack, self.tokens = stack, tokens
        self.target = tokens.flip(1).bfloat16()
        is_gpu = tokens.device.type == "cuda"
        self.optimizer = torch.optim.AdamW(stack.parameters(), lr=1e-4, fused=is_gpu, capturable=is_gpu)

    def step(self) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.tokens.device):
            output = self.stack(self.tokens)
        loss = (output.float() - self.target).square().mean()
        loss.backward()
        self.optimizer.step()
        reached: Tensor = loss.detach()
        return reached

    def kept(self) -> list[Tensor]:
        """What the model holds between steps: weights, gradients, states of the optimizer."""
        parameters = list(self.stack.parameters())
        states = [each for state in self.optimizer.state.values() for each in state.values()]
        gradients = [parameter.grad for parameter in parameters]
        return [each for each in (*parameters, *gradients, *states) if isinstance(each, Tensor)]


def autocast(device: torch.device) -> torch.autocast:
    # Each weight is used once, so its rounded copy need not be remembered, nor outlive a graph.
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)


def measure(
    groups: Sequence[Mapping[str, Run]], kept: Callable[[str], list[Tensor]], device: torch.device
) -> dict[str, Speed]:
    """Time variants, those of a group in turns, then each as a CUDA graph by itself.

    Args:
        groups: Variants whose memory fits side by side.
        kept: What a variant holds between runs, for the count of memory.
        device: Where.
    """
    speeds = {}
    for runs in groups:
        launched = interleaved(runs, device, turns=10, seconds=20)
        give_back(device)
        for name, run in runs.items():
            time = launched[name]
            if isinstance(time, Failure):
                speeds[name] = Speed(time, time, time)
                continue
            peak = peak_mib(run, device, kept(name))
            speeds[name] = Speed(time, time_graph(run, device, turns=10, seconds=4), peak)
    return speeds


def speed_table(what: str, shape: Tokens, size: Size, parts: Parts, speeds: dict[str, Speed]) -> Table:
    rows: list[list[Cell]] = []
    for name, speed in speeds.items():
        rate = None if speed.best is None else 1000 * shape.batch / speed.best
        peak = str(speed.peak_mib) if isinstance(speed.peak_mib, Failure) else speed.peak_mib
        faster = [times_as_fast(speeds, name, other) for other in (EAGER, EAGER_COMPILED)]
        graph = None if speed.graph is None else str(speed.graph)
        rows.append([name, str(speed.launched), graph, rate, *faster, peak])
    notes = [f"{name}: {reason}" for name, speed in speeds.items() for reason in sorted(speed.failures)]
    notes.append(f"Eager on {', '.join(f'{name}: {source}' for name, source in parts.sources.items())}.")
    title = (
        f"{what}, L = {shape.length} ({shape.rows} x {shape.cols} x {shape.channels}), batch {shape.batch}, "
        f"d = {size.width}, {size.depth} blocks (ViT: half as many), bf16"
    )
    columns = (
        "variant",
        "ms, launched",
        "ms, CUDA graph",
        "images/s",
        "times eager",
        "times eager compiled",
        "peak MiB",
    )
    return Table(title, columns, rows, notes)


def times_as_fast(speeds: dict[str, Speed], mine: str, other: str) -> float | None:
    """Ratio of the better times of both; None where one has none."""
    times = [speeds[name].best if name in speeds else None for name in (mine, other)]
    if times[0] is None or times[1] is None:
        return None
    return times[1] / times[0]


def faster_than_eager(what: str, speeds: dict[str, Speed], parts: Parts, bound: float) -> Goal:
    """Judge cellvim by the eager composition; of the compiled one the number is told beside it."""
    claim = f"{what}: times as fast as the eager composition"
    if not parts.is_all_kernels:
        return at_least(f"{claim} on mamba-ssm and causal-conv1d", None, bound)
    compiled = times_as_fast(speeds, CELLVIM, EAGER_COMPILED)
    beside = "was not measured" if compiled is None else f"{compiled:.3g}"
    return at_least(f"{claim} (compiled: {beside})", times_as_fast(speeds, CELLVIM, EAGER), bound)


def smaller_than_eager(what: str, speeds: dict[str, Speed], parts: Parts, bound: float) -> Goal:
    """Judge the peak of cellvim's memory by that of the eager composition."""
    claim = f"{what}: peak memory over the eager composition's"
    if not parts.is_all_kernels:
        return at_most(f"{claim} on mamba-ssm and causal-conv1d", None, bound)
    mine, eager = (speeds[name].peak_mib for name in (CELLVIM, EAGER))
    share = mine / eager if isinstance(mine, float) and isinstance(eager, float) else None
    return at_most(claim, share, bound)


def faster_than_vit(what: str, speeds: dict[str, Speed], bound: float) -> Goal:
    """Judge cellvim by the vision transformer that was the fastest here, and name it."""
    claim = f"{what}: times as fast as the fastest ViT"
    times = {name: best for name in VITS if (best := speeds[name].best) is not None}
    if not times:
        return at_least(claim, None, bound)
    fastest = min(times, key=times.__getitem__)
    named = f"{claim} ({fastest.removeprefix('ViT, ')}, {speeds[fastest].best_way})"
    return at_least(named, times_as_fast(speeds, CELLVIM, fastest), bound)


def _weights_of(stacks: dict[str, Stack], name: str) -> list[Tensor]:
    return list(stacks[name].parameters())


def _kept_by(trainings: dict[str, Training], name: str) -> list[Tensor]:
    return trainings[name].kept()


def _compiled(make: Make) -> Stack:
    stack = make()
    stack.compile_blocks()
    return stack


def _forget(device: torch.device) -> None:
    torch.compiler.reset()
    give_back(device)
