"""Correctness and speed on an NVIDIA GPU, in one call of a few minutes.

    python -m benchmarks.gpu [--out out/gpu] [--only forward training] [--backend triton] [--seconds 500]
    TRITON_INTERPRET=1 python -m benchmarks.gpu --only correctness --device cpu

Sections run in order of importance. Each is printed and saved as soon as it is done; one that fails is told and left
behind. At the end a Markdown table with every claim, its number and whether it held. Needs torch, Triton, jaxtyping
and, for the eager baseline at its best, the packages mamba-ssm and causal-conv1d; where they are missing plain torch
takes their place, and the tables say so. Exits with 1 if a result was wrong, a section failed, or the backend asked
for does not work; slowness is no error.
"""

import argparse
import gc
import os
import platform
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from benchmarks import gpu_contracts, gpu_correctness, gpu_encoder, gpu_scaling, stage_times
from benchmarks.eager import kernel_parts
from benchmarks.findings import Cell, Findings, Goal, Table, as_markdown, claims, save, section_markdown
from benchmarks.gpu_encoder import Tokens
from benchmarks.stacks import Size
from benchmarks.timing import WARM_UP, Failure, Run, give_back, milliseconds
from cellvim_kernels.dispatch import (
    ENVIRONMENT_KEY,
    UnavailableBackendError,
    UnknownBackendError,
    chosen_backend,
)
from cellvim_kernels.stages import FUSED

PACKAGES = ("torch", "triton", "mamba-ssm", "causal-conv1d", "numpy")
GIB = 2**30

Section = Callable[[Findings], None]


@dataclass(frozen=True)
class Scale:
    """How large everything is.

    Args:
        encoder: Tokens of the encoder's forward and training step.
        tokens: From few tokens to many.
        images: Single images, one channel.
        size: The model.
        kernels: One layer.
        short: Tokens and model of what is checked but not compared.
        copied: Bytes of the copy that measures memory; side of the matrix that measures arithmetic.
    """

    encoder: tuple[Tokens, ...]
    tokens: tuple[Tokens, ...]
    images: tuple[Tokens, ...]
    size: Size
    kernels: stage_times.Shape
    short: tuple[Tokens, Size]
    copied: tuple[int, int]


FULL = Scale(
    encoder=(Tokens(64, 14, 14, 8), Tokens(16, 28, 28, 8)),
    tokens=tuple(
        Tokens(max(1, 100_000 // (rows * cols * channels)), rows, cols, channels)
        for rows, cols, channels in (
            (14, 14, 1),
            (7, 7, 8),
            (10, 10, 8),
            (14, 14, 8),
            (20, 20, 8),
            (28, 28, 8),
            (40, 40, 8),
            (64, 32, 8),
        )
    ),
    images=tuple(Tokens(1, side, side, 1) for side in (32, 64, 96, 128)),
    size=Size(),
    kernels=stage_times.Shape(batch=64, rows=14, cols=14, channels=8, inner=768, state=16, rank=24),
    short=(Tokens(8, 14, 14, 8), Size(depth=4)),
    copied=(4 * GIB, 8192),
)
TINY_SIZE = Size(width=16, depth=2, state=2, head=8)
TINY = Scale(
    encoder=(Tokens(2, 2, 3, 2),),
    tokens=(Tokens(2, 2, 2, 1), Tokens(1, 3, 3, 2)),
    images=(Tokens(1, 3, 3, 1),),
    size=TINY_SIZE,
    kernels=stage_times.Shape(batch=1, rows=2, cols=3, channels=2, inner=6, state=2, rank=1),
    short=(Tokens(1, 2, 3, 2), TINY_SIZE),
    copied=(2**20, 128),
)


def main() -> int:
    arguments = parse(sys.argv[1:])
    device = torch.device(arguments.device)
    try:
        backend = use_backend(arguments.backend, device)
    except (UnknownBackendError, UnavailableBackendError) as error:
        print(f"benchmarks.gpu: nothing was measured: {error}", file=sys.stderr)
        return 1
    scale = TINY if arguments.tiny else FULL
    sections = all_sections(scale, device, backend, is_tiny=arguments.tiny)
    chosen = {name: run for name, run in sections.items() if name in (arguments.only or sections)}
    found = run_sections(chosen, arguments.out, arguments.seconds, device)
    command = " ".join(["python -m benchmarks.gpu", *sys.argv[1:]])
    heading = f"`{command}`, {time.strftime('%Y-%m-%d')}, {device_name(device)}, backend {backend}"
    (arguments.out / "report.md").write_text(as_markdown(found, heading), encoding="utf-8")
    # The sections stand above already.
    print(f"\n{heading}\n\n{claims(found)}")
    return 0 if all(findings.is_sound for findings in found) else 1


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    has_gpu = torch.cuda.is_available()
    names = list(all_sections(TINY, torch.device("cpu"), "torch", is_tiny=True))
    parser.add_argument("--out", type=Path, default=Path("out/gpu"), help="folder of the results")
    parser.add_argument("--only", nargs="+", choices=names, metavar="SECTION", help=f"of {', '.join(names)}")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if has_gpu else "cpu")
    parser.add_argument(
        "--backend", default=os.environ.get(ENVIRONMENT_KEY, "triton"), help="as CELLVIM_KERNEL"
    )
    parser.add_argument("--seconds", type=float, default=500, help="no section starts later than this")
    parser.add_argument("--tiny", action="store_true", help="smallest shapes, to see that everything runs")
    parsed = parser.parse_args(arguments)
    # A CPU, and Triton's interpreter all the more, is here to try the code.
    parsed.tiny = parsed.tiny or parsed.device == "cpu"
    return parsed


def use_backend(wanted: str, device: torch.device) -> str:
    """Make a backend the one in use from here on, and give its name; `auto` becomes what it stands for.

    Raises:
        UnknownBackendError: There is none of this name.
        UnavailableBackendError: It does not work here.
    """
    os.environ[ENVIRONMENT_KEY] = wanted
    chosen = chosen_backend(device.type)
    if wanted != "auto":
        return wanted
    os.environ[ENVIRONMENT_KEY] = chosen
    return chosen


def all_sections(scale: Scale, device: torch.device, backend: str, *, is_tiny: bool) -> dict[str, Section]:
    """Name what can be measured, the most important first."""

    def kernels(findings: Findings) -> None:
        if backend not in FUSED:
            msg = f"{backend} has no kernels of its own: choose one of {', '.join(FUSED)} with --backend"
            raise ValueError(msg)
        rate = copy_rate(scale.copied[0], device)
        dtype = torch.bfloat16 if backend == "triton" else torch.float32
        stage_times.time_kernels(findings, scale.kernels, dtype, device, backend, rate)

    return {
        "facts": lambda findings: tell_facts(findings, scale, device, backend),
        "correctness": lambda findings: gpu_correctness.compare(findings, device, is_tiny=is_tiny),
        "kernels": kernels,
        "forward": lambda findings: gpu_encoder.time_forward(findings, scale.encoder, scale.size, device),
        "training": lambda findings: gpu_encoder.time_training(findings, scale.encoder, scale.size, device),
        "determinism": lambda findings: gpu_contracts.train_twice(findings, *scale.short, device),
        "tokens": lambda findings: gpu_scaling.time_tokens(findings, scale.tokens, scale.size, device),
        "images": lambda findings: gpu_scaling.time_images(findings, scale.images, scale.size, device),
        "compile": lambda findings: gpu_contracts.compile_whole(findings, *scale.short, device),
    }


def run_sections(
    sections: dict[str, Section], out: Path, seconds: float, device: torch.device
) -> list[Findings]:
    """Run sections in turn; what fails or comes too late is told, and all else that was found stays.

    Args:
        sections: By name.
        out: Folder for one JSON each.
        seconds: After these no section begins.
        device: Whose memory is given back in between.
    """
    found = []
    began = time.perf_counter()
    for name, run in sections.items():
        started = time.perf_counter()
        findings = Findings(name)
        try:
            if started - began > seconds:
                findings.error = f"not begun: {seconds:g} s were over"
            else:
                run(findings)
        except Exception as error:  # noqa: BLE001 - told in the report; the other sections go on
            traceback.print_exc()
            findings.error = Failure.of(error).reason
        findings.seconds = time.perf_counter() - started
        save(findings, out)
        print(f"{section_markdown(findings)}\n\n{claims([findings])}", flush=True)
        found.append(findings)
        gc.collect()
        give_back(device)
    return found


def tell_facts(findings: Findings, scale: Scale, device: torch.device, backend: str) -> None:
    """Versions, and the two rates that bound everything else."""
    side = scale.copied[1]
    generator = torch.Generator(device).manual_seed(0)
    left, right = (torch.randn(side, side, generator=generator, device=device).bfloat16() for _ in range(2))
    taken = _median_of(partial(torch.mm, left, right), device)
    in_use = chosen_backend(device.type)
    claim = f"backends other than {backend}, which was asked for, in use: 0"
    differing = int(in_use != backend)
    findings.goals.append(Goal(claim, differing, differing == 0, is_required=True))
    facts: dict[str, Cell] = {
        "device": device_name(device),
        "Python": platform.python_version(),
        **{name: installed(name) for name in PACKAGES},
        "CUDA of torch": torch.version.cuda,
        "kernel backend": f"{backend} asked for, {in_use} in use",
        **{f"eager {name}": source for name, source in kernel_parts().sources.items()},
        "copy, TB/s read and written": copy_rate(scale.copied[0], device) / 1e12,
        f"bf16 product of {side}, TFLOP/s": 2 * side**3 / (1e9 * taken),
    }
    rows = [[name, value] for name, value in facts.items()]
    findings.tables.append(Table("Machine", ("what", "value"), rows))


def copy_rate(size: int, device: torch.device) -> float:
    """Bytes a second, read and written, of a large copy."""
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / (1e-3 * _median_of(partial(target.copy_, source), device))


def _median_of(run: Run, device: torch.device) -> float:
    for _ in range(WARM_UP):
        run()
    return statistics.median(milliseconds(run, device) for _ in range(10))


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()


def installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


if __name__ == "__main__":
    raise SystemExit(main())
