"""The small model on a CPU: eager composition, plain torch, fused C++ and a vision transformer on the same tokens.

    python -m benchmarks.cpu [--seconds 60] [--threads 2] [--out out/cpu] [--quick]

Sections: the machine's copy and product rates; agreement of all paths with the equation; images a second and time of
a training step at 1,568 and 6,272 tokens; peak memory of a training step, each in a process of its own; every fused
stage beside the time of its bytes; time against tokens beside the transformer. Variants take turns, so that a busy
moment hits all of them. "Eager" is the block as usually written (benchmarks/eager.py). Prints Markdown, and writes
it with JSON and plots to --out. `--quick` only shows that everything runs.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.eager import Norm, eager_pooled_mixer, torch_add_rms_norm
from benchmarks.findings import Findings, Plot, Table, as_markdown, at_least, save
from benchmarks.stacks import Mixer, Size, Stack, attention_stack, grids_of, scan_stack
from benchmarks.stage_times import Shape, time_kernels
from benchmarks.timing import Failure, Run, Timing, interleaved, resident_growth_mib
from cellvim_kernels import Grid, MixerWeights
from cellvim_kernels.add_rms_norm.operator import fused_add_rms_norm
from cellvim_kernels.pooled_mixer import naive_pooled_mixer, token_major_pooled_mixer
from cellvim_kernels.pooled_mixer.operator import fused_pooled_mixer

CHANNELS = 8
CPU = torch.device("cpu")
TOLERANCE = 2e-5
"""Relative, in the 2-norm, of float32 to the equation in float64: a few roundings, not one per sum."""
RETURN_AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": str(2**16)}
"""Makes glibc give a tensor's memory back when it is freed, so that what a step left does not hide the next."""
VARIANTS = ("eager", "torch", "cpp", "vit")
NAMES = {
    "eager": "FastVim-S, eager composition",
    "torch": "FastVim-S, plain torch",
    "cpp": "FastVim-S, fused C++",
    "vit": "ViT-S, scaled_dot_product_attention",
}


@dataclass(frozen=True)
class Workload:
    """What is computed, and for how long.

    Args:
        size: Of the model.
        sides: Patches per side of both images, the coarse and the fine.
        batches: Images at once, of each.
        token_sides: Patches per side for time against tokens.
        seconds: For each table.
    """

    size: Size
    sides: tuple[int, int]
    batches: tuple[int, int]
    token_sides: tuple[int, ...]
    seconds: float


FULL = Workload(Size(), sides=(14, 28), batches=(2, 1), token_sides=(5, 7, 10, 14, 20, 28), seconds=60)
QUICK = Workload(
    Size(width=32, depth=2, state=4, head=16), sides=(2, 3), batches=(2, 1), token_sides=(2, 3), seconds=0
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=FULL.seconds, help="for each table of times")
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--out", type=Path, default=Path("out/cpu"), help="folder for report, JSON and plots")
    parser.add_argument("--quick", action="store_true", help="a tiny model: shows that all runs")
    parser.add_argument("--peak-of", choices=VARIANTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    workload = QUICK if arguments.quick else replace(FULL, seconds=arguments.seconds)
    if arguments.peak_of is not None:
        print(json.dumps(peak_mib(workload, arguments.peak_of)))
        return
    sections: list[Findings] = []
    for find in (
        partial(find_rates, arguments.threads, is_quick=arguments.quick),
        find_agreement,
        partial(find_speed, workload),
        partial(find_memory, workload, arguments.threads, is_quick=arguments.quick),
        partial(find_stages_of, workload, sections),
        partial(find_crossover, workload),
    ):
        began = time.perf_counter()
        findings = find()
        findings.seconds = time.perf_counter() - began
        sections.append(findings)
        save(findings, arguments.out)
        print(f"{findings.section}: {findings.seconds:.0f} s", file=sys.stderr)
    page = as_markdown(sections, heading())
    (arguments.out / "report.md").write_text(page, encoding="utf-8")
    print(page)


def usable_cores() -> int:
    # A container, or taskset, may leave fewer than the machine has.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def heading() -> str:
    command = " ".join(["python -m benchmarks.cpu", *sys.argv[1:]])
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"`{command}` on {time.strftime('%Y-%m-%d')}: {processor_name()}, {os.cpu_count()} cores, load {load} "
        f"(1, 5, 15 min) at the end; Python {platform.python_version()}, torch {torch.__version__}, "
        f"{torch.backends.cpu.get_cpu_capability()}; float32."
    )


def processor_name() -> str:
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8").splitlines() if facts.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def find_rates(threads: int, *, is_quick: bool) -> Findings:
    """Measure what a large copy moves and a large product computes in a second."""
    elements, side = (2**16, 64) if is_quick else (2**26, 2048)
    source, target = torch.ones(elements), torch.empty(elements)
    left = torch.randn(side, side)
    cases: dict[str, Run] = {"copy": lambda: target.copy_(source), "product": lambda: left @ left}
    times = interleaved(cases, CPU, turns=9, seconds=5)
    copy, product = median_ms(times["copy"]), median_ms(times["product"])
    rows = [
        ["copy, GB/s read and written", 2 * source.nbytes / copy / 1e6],
        ["product, GFLOP/s", 2 * side**3 / product / 1e6],
        ["threads", threads],
    ]
    return Findings("rates", [Table("this machine", ("what", "rate"), [[*row] for row in rows])])


def find_agreement() -> Findings:
    """Hold every mixer that is timed to the equation in float64."""
    rows = []
    for order in ("rwc", "wrc"):
        grid = Grid(3, 4, CHANNELS, "rwc" if order == "rwc" else "wrc")
        stack = scan_stack(QUICK.size, [grid], naive_pooled_mixer, torch_add_rms_norm)
        weights = stack.blocks[0].mixer.weights
        assert isinstance(weights, MixerWeights)  # noqa: S101  (ModuleList forgets what it holds)
        xz = torch.randn(2, grid.length, 4 * QUICK.size.width, generator=torch.Generator().manual_seed(0))
        wide = MixerWeights(*(each.double() for each in weights if each is not None))
        truth = naive_pooled_mixer(xz.double(), wide, grid)
        for name, (mixer, _) in scan_paths().items():
            error = (mixer(xz, weights, grid) - truth).norm() / truth.norm()
            rows.append([NAMES[name], order, error.item()])
            if not error < TOLERANCE:
                msg = f"{name} differs from the equation by {error:.1e}: its times would mean nothing"
                raise AssertionError(msg)
    return Findings(
        "agreement", [Table("against the equation", ("path", "order", "relative error"), [*rows])]
    )


def find_speed(workload: Workload) -> Findings:
    """Time the whole encoder forward, and a training step, for both images."""
    findings = Findings("speed")
    for side, batch in zip(workload.sides, workload.batches, strict=True):
        tokens = side * side * CHANNELS
        stacks = {name: stack_of(name, workload.size, side) for name in VARIANTS}
        inputs = torch.randn(batch, tokens, workload.size.width, generator=torch.Generator().manual_seed(0))
        for title, case in (("forward", forward), ("training step", training_step)):
            cases = {name: case(stack, inputs) for name, stack in stacks.items()}
            times = interleaved(cases, CPU, turns=9, seconds=workload.seconds, warm_up=1, fewest=3)
            rows = [
                [NAMES[name], str(time), 1000 * batch / median_ms(time), turns_of(time)]
                for name, time in times.items()
            ]
            columns = ("", "ms: median (quartiles)", "images/s", "turns")
            findings.tables.append(Table(f"{title}, {tokens} tokens, batch {batch}", columns, rows))
            eager, fused, vit = (median_ms(times[name]) for name in ("eager", "cpp", "vit"))
            findings.goals += [
                at_least(f"{title}, {tokens} tokens: fused C++ over eager", eager / fused, 1.8),
                at_least(
                    f"{title}, {tokens} tokens: fused C++ over ViT-S", vit / fused, 1 if side < 20 else 3
                ),
            ]
    return findings


def find_memory(workload: Workload, threads: int, *, is_quick: bool) -> Findings:
    """Take the peak memory of a training step of each variant, in a process of its own."""
    rows = []
    for name in VARIANTS:
        command = [sys.executable, "-m", "benchmarks.cpu", "--peak-of", name, "--threads", str(threads)]
        ended = subprocess.run(
            [*command, *(["--quick"] if is_quick else [])],
            env={**os.environ, **RETURN_AT_ONCE},
            stdout=subprocess.PIPE,
            check=True,
        )
        rows.append([NAMES[name], json.loads(ended.stdout)])
    batch, tokens = workload.batches[0], workload.sides[0] ** 2 * CHANNELS
    title = f"training step, {tokens} tokens, batch {batch}: MiB above the weights and their optimizer"
    return Findings("memory", [Table(title, ("", "MiB"), [[*row] for row in rows])])


def peak_mib(workload: Workload, name: str) -> float | None:
    """Most memory of a second training step above what is there before it; None where nobody counts."""
    side, batch = workload.sides[0], workload.batches[0]
    inputs = torch.randn(batch, side * side * CHANNELS, workload.size.width)
    stack = stack_of(name, workload.size, side)
    step = training_step(stack, inputs)
    # The first makes the optimizer's moments, loads libraries and packs weights: none of it is a step's own.
    step()
    stack.zero_grad(set_to_none=True)
    return resident_growth_mib(step)


def find_stages_of(workload: Workload, sections: list[Findings]) -> Findings:
    """Time every fused stage beside its bytes over the copy rate just measured."""
    ((_, copy_rate), *_) = sections[0].tables[0].rows
    assert isinstance(copy_rate, float)  # noqa: S101
    size, side, findings = workload.size, workload.sides[0], Findings("stages")
    shape = Shape(workload.batches[0], side, side, CHANNELS, 2 * size.width, size.state, size.rank)
    time_kernels(findings, shape, torch.float32, CPU, "cpp", 1e9 * copy_rate)
    # The bound on times of bytes is for a GPU: here the arithmetic of the activations decides.
    findings.goals.clear()
    return findings


def find_crossover(workload: Workload) -> Findings:
    """Time one image of more and more tokens, beside the transformer."""
    curves: dict[str, list[tuple[float, float]]] = {NAMES[name]: [] for name in VARIANTS}
    rows = []
    for side in workload.token_sides:
        tokens = side * side * CHANNELS
        inputs = torch.randn(1, tokens, workload.size.width, generator=torch.Generator().manual_seed(0))
        cases = {name: forward(stack_of(name, workload.size, side), inputs) for name in VARIANTS}
        times = interleaved(cases, CPU, turns=5, seconds=workload.seconds / 3, warm_up=1, fewest=3)
        for name in VARIANTS:
            curves[NAMES[name]].append((tokens, median_ms(times[name])))
        rows.append([tokens, *(median_ms(times[name]) for name in VARIANTS)])
    title = "one image, forward: ms"
    table = Table(title, ("tokens", *(NAMES[name] for name in VARIANTS)), [[*row] for row in rows])
    return Findings("tokens", [table], plots=[Plot("cpu_tokens", "tokens", "ms of one image", curves)])


def scan_paths() -> dict[str, tuple[Mixer, Norm]]:
    return {
        "eager": (eager_pooled_mixer, torch_add_rms_norm),
        "torch": (token_major_pooled_mixer, torch_add_rms_norm),
        "cpp": (partial(fused_pooled_mixer, backend="cpp"), partial(fused_add_rms_norm, backend="cpp")),
    }


def stack_of(name: str, size: Size, side: int) -> Stack:
    grids = grids_of(side, side, CHANNELS)
    return attention_stack(size, grids) if name == "vit" else scan_stack(size, grids, *scan_paths()[name])


def forward(stack: Stack, inputs: Tensor) -> Run:
    def run() -> None:
        with torch.inference_mode():
            stack(inputs)

    return run


def training_step(stack: Stack, inputs: Tensor) -> Run:
    """Forward, backward and AdamW; the loss is the mean square of what comes out."""
    optimizer = torch.optim.AdamW(stack.parameters(), lr=1e-5)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        stack(inputs).square().mean().backward()
        optimizer.step()

    return run


def median_ms(timing: Timing | Failure) -> float:
    if isinstance(timing, Failure):
        raise RuntimeError(timing.reason)  # noqa: TRY004  (a case that failed, not a wrong argument)
    return timing.median


def turns_of(timing: Timing | Failure) -> int:
    return timing.turns if isinstance(timing, Timing) else 0


if __name__ == "__main__":
    main()
