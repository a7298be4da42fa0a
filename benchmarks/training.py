"""Training: time of a step, crops a second and peak memory, for each preset and each backbone.

    python benchmarks/training.py [--quick] [--seconds 5] [--threads 2] [--device auto] [--docs docs/training_speed.md]

Every row is a process of its own, so that its peak memory is its own. It takes whole steps of the masked objective
(forward, backward, clipping, AdamW, moving average) on random crops of five channels, without reading any: first one
that hides a single channel, the largest there is, which sets the peak; then by turns one that hides 75 % of the
patches and one that hides two or three channels, as channel steps do on average, until each kind had its turns or the
time is up. Crops a second are those of the default mix of both kinds. Prints Markdown, or writes it: the command, the machine, and a table.
"""

import argparse
import copy
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from cpu import processor_name
from torch.nn.utils import clip_grad_norm_

from cellvim.atomic import write_text
from cellvim.config import MaskingSettings, PretrainSettings
from cellvim.dataset import Batch
from cellvim.model import choose_device, draw_mask, name_kernels
from cellvim.pretrain.compute import computing_in, describe_device, peak_memory_bytes, prepare_model
from cellvim.pretrain.loop import make_optimizer
from cellvim.pretrain.objective import MaskedObjective
from cellvim.pretrain.state import update_ema

CHANNELS = ("DNA", "ER", "RNA", "AGP", "Mito")
CROP_PX = 224
CPU_BATCH = {"nano": 16, "tiny": 4, "small": 2, "base": 1, "large": 1, "huge": 1}
GPU_BATCH = {"nano": 256, "tiny": 128, "small": 64, "base": 32, "large": 16, "huge": 8}
LARGEST = ("large", "huge")
BACKBONES = ("bag_of_channels", "channel_vit", "channel_vim")
VARIANTS = (("fp32", False), ("fp32", True), ("bf16", False), ("bf16", True))
"""Numbers of the large products, and whether blocks are computed again on the way back."""
FEWEST, MOST = 3, 15
"""Timed turns of each kind of step that are taken however late it is, and at most."""
HEAD = (
    "| model | backbone | numbers | checkpointed | batch | step, 75 % of patches hidden: ms (quartiles) "
    "| step, 2 or 3 of 5 channels hidden: ms (quartiles) | crops/s | peak memory, GiB |\n"
    "|---|---|---|---|---|---|---|---|---|\n"
)


@dataclass(frozen=True)
class Case:
    """One row: what is trained, and how."""

    preset: str
    backbone: str
    precision: str
    is_checkpointed: bool
    batch_size: int
    device: str
    threads: int
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=5, help="for the timed steps of a row")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--docs", type=Path, help="write the page there instead of printing it")
    parser.add_argument("--quick", action="store_true", help="two rows of a small batch: shows that all runs")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case is not None:
        print(json.dumps(measure(Case(**json.loads(arguments.case)))))
        return
    device = choose_device(arguments.device).type
    cases = all_cases(device, arguments.threads, arguments.seconds)
    if arguments.quick:
        cases = [replace(case, batch_size=1, seconds=0) for case in cases if case.preset == "nano"][:2]
    page = facts(device, arguments.threads)
    if arguments.docs is None:
        print(page + HEAD, end="", flush=True)
    else:
        page = f"# Speed and memory of training\n\n{page}"
    page += HEAD
    for case in cases:
        row = table_row(case, in_own_process(case))
        page += row
        if arguments.docs is None:
            print(row, end="", flush=True)
    if arguments.docs is not None:
        write_text(arguments.docs, page)


def all_cases(device: str, threads: int, seconds: float) -> list[Case]:
    """Every preset in every variant, the smallest two beside the other backbones, smallest first."""
    batches = CPU_BATCH if device == "cpu" else GPU_BATCH
    chosen = []
    for preset in batches:
        # What is compared stands together, as a machine is not equally fast for a quarter of an hour.
        others = BACKBONES if preset in ("nano", "tiny") else ()
        chosen += [(preset, "fast_channel_vim", *variant) for variant in variants_of(preset, device)]
        chosen += [(preset, backbone, *VARIANTS[0]) for backbone in others]
    return [Case(*words, batches[words[0]], device, threads, seconds) for words in chosen]


def variants_of(preset: str, device: str) -> tuple[tuple[str, bool], ...]:
    """On a CPU, bf16 with blocks computed again tells nothing new, and one row says what the largest would take."""
    if device == "cuda":
        return VARIANTS
    return VARIANTS[1:2] if preset in LARGEST else VARIANTS[:3]


def in_own_process(case: Case) -> dict[str, object] | None:
    """Measure in a fresh process; None if memory does not suffice."""
    command = [sys.executable, __file__, "--case", json.dumps(asdict(case))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return dict(json.loads(done.stdout))
    if "out of memory" in done.stderr.lower() or done.returncode == -9:
        return None
    sys.exit(f"{case} failed:\n{done.stderr}")


def measure(case: Case) -> dict[str, object]:
    """Train for a few steps."""
    torch.set_num_threads(case.threads)
    device = torch.device(case.device)
    settings = PretrainSettings.checked(
        {
            "preset": case.preset,
            "batch_size": case.batch_size,
            "model": {"backbone": case.backbone},
            "engine": {"precision": case.precision, "is_checkpointed": case.is_checkpointed},
        }
    )
    trained = Trained(settings, device)
    trained.take_step(trained.step_hiding(1))
    kinds = {
        "patches": [trained.step_hiding(0)],
        "channels": [trained.step_hiding(2), trained.step_hiding(3)],
    }
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    began = time.perf_counter()
    for turn in range(MOST):
        if turn >= FEWEST and time.perf_counter() - began > case.seconds:
            break
        for kind, steps in kinds.items():
            started = time.perf_counter()
            trained.take_step(steps[turn % len(steps)])
            times[kind].append(1000 * (time.perf_counter() - started))
    return {**times, "peak_bytes": peak_memory_bytes(device)}


class Trained:
    """A model and all that a training step changes, on crops that are drawn once."""

    def __init__(self, settings: PretrainSettings, device: torch.device) -> None:
        self.settings = settings
        self.device = device
        self.masking = settings.masking
        self.objective = MaskedObjective(settings, CHANNELS).to(device)
        prepare_model(self.objective, settings.engine, device)
        self.ema = copy.deepcopy(self.objective).requires_grad_(requires_grad=False)
        self.optimizer = make_optimizer(self.objective, settings)
        generator = torch.Generator().manual_seed(0)
        shape = (settings.batch_size, len(CHANNELS), CROP_PX, CROP_PX)
        self.images = torch.randn(shape, generator=generator).to(device)

    def step_hiding(self, channels: int) -> int:
        """Find a step that hides so many whole channels, or patches if none."""
        side = CROP_PX // self.settings.model.patch_px
        for step in range(1000):
            mask = draw_mask(
                self.masking, batch=1, channels=len(CHANNELS), grid=(side, side), seed=0, step=step
            )
            hidden = int(mask.hidden[0].all(2).all(1).sum()) if mask.kind == "channel" else 0
            if hidden == channels:
                return step
        msg = f"no step hides {channels} channels"
        raise AssertionError(msg)

    def take_step(self, step: int) -> None:
        batch = Batch(self.images, CHANNELS, step, 0, len(self.images))
        dtype = torch.bfloat16 if self.settings.engine.precision == "bf16" else torch.float32
        self.optimizer.zero_grad(set_to_none=True)
        with computing_in(dtype, self.device):
            loss = self.objective(batch)["loss"]
        loss.backward()
        clip_grad_norm_(self.objective.parameters(), 1.0)
        self.optimizer.step()
        update_ema(self.ema, self.objective, 0.999)
        loss.item()  # a GPU has finished when its number is here


def table_row(case: Case, found: dict[str, object] | None) -> str:
    words = [case.preset, case.backbone, case.precision, "yes" if case.is_checkpointed else "no"]
    words.append(str(case.batch_size))
    if found is None:
        return f"| {' | '.join(words)} | out of memory | | | |\n"
    medians = []
    for kind in ("patches", "channels"):
        low, middle, high = statistics.quantiles(found[kind], n=4)  # type: ignore[call-overload]
        medians.append(middle)
        words.append(f"{middle:.0f} ({low:.0f} to {high:.0f})")
    # k = 0 of a channel step hides patches.
    channels = MaskingSettings().channel_steps * (len(CHANNELS) - 1) / len(CHANNELS)
    mean_ms = (1 - channels) * medians[0] + channels * medians[1]
    words.append(f"{1000 * case.batch_size / mean_ms:.3g}")
    words.append(f"{int(str(found['peak_bytes'])) / 2**30:.2f}")
    return f"| {' | '.join(words)} |\n"


def facts(device: str, threads: int) -> str:
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    name = processor_name() if device == "cpu" else describe_device(torch.device(device))
    memory = (
        "peak of the whole process; Python with PyTorch alone take "
        f"{peak_memory_bytes(torch.device('cpu')) / 2**30:.2f} GiB"
        if device == "cpu"
        else "most that PyTorch had allocated on the GPU"
    )
    if device == "cpu":
        memory += ".\nbf16 keeps its weights in float32 and makes copies in bf16 for the products, so a large model "
        memory += "at batch 1 saves nothing"
    kernels = name_kernels(torch.device(device), states=16)
    return (
        f"`{' '.join(['python', *sys.argv])}` on {time.strftime('%Y-%m-%d')}: {name},\n"
        f"{os.cpu_count()} cores, threads: {threads}, load {load} (1, 5, 15 min) at the start;\n"
        f"Python {platform.python_version()}, torch {torch.__version__}, kernels: {kernels}. Crops of {CROP_PX} px, "
        f"{len(CHANNELS)} channels; reading of crops not included.\nMemory: {memory}.\n\n"
    )


if __name__ == "__main__":
    main()
