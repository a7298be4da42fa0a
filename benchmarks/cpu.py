"""The mixer and the nano training step on a CPU: eager composition against the token-major path.

    python benchmarks/cpu.py [--quick] [--repeats 9] [--seconds 100] [--threads 2]

"Eager" is the block as usually written: channel-first tensors, a flipped copy for the backward direction,
conv1d, a scan loop per direction that autograd records, repeat, transposes for odd blocks. Variants take turns,
so that a busy moment hits all of them, until each had its repeats or the time is up. Prints Markdown to paste:
the command, the machine, and a table of wall time (median and quartiles) and of processor time of all threads,
which a busy machine distorts less. `--quick` only shows that everything runs: few repeats of a small batch.
"""

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.eager import eager_pooled_mixer
from cellvim.config import MaskingSettings, ModelSettings
from cellvim.model import MaskedAutoencoder, draw_mask
from cellvim.model.mixer import Block
from cellvim_kernels import Grid, MixerWeights, Order
from cellvim_kernels.pooled_mixer import naive_pooled_mixer, token_major_pooled_mixer

STAINS = ("DNA", "ER", "RNA", "AGP", "Mito")
CROP_PX, GRID = 112, (7, 7)
WARM_UP, FEWEST = 2, 3
"""Turns that fill caches and allocators, and timed turns that are taken however late it is."""

Mixer = Callable[[Tensor, MixerWeights, Grid], Tensor]
Cases = dict[str, Callable[[], object]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=9, help="timed turns of each case")
    parser.add_argument(
        "--seconds", type=float, default=100, help="time for all of it; fewer turns if it is up"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--quick", action="store_true", help="few repeats of a small batch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    repeats, batch = (FEWEST, 2) if arguments.quick else (arguments.repeats, 32)
    model = MaskedAutoencoder(ModelSettings(), STAINS, seed=0)
    block = model.encoder.blocks[0]
    assert isinstance(block, Block)  # noqa: S101  (ModuleList forgets what it holds)
    weights = block.mixer.weights
    check_that_all_agree(weights)
    print_facts(arguments.threads, batch)
    print("| ms | wall: median (quartiles) | processor: median | turns |\n|---|---|---|---|")
    mixers = all_mixer_cases(weights, batch)
    # Two fifths of the time for the mixers: they have two fifths of the cases, and shorter ones.
    report(mixers, repeats, 0.4 * arguments.seconds)
    report(model_cases(model, batch), repeats, 0.6 * arguments.seconds)


def print_facts(threads: int, batch: int) -> None:
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    model = ModelSettings()
    print(f"`{' '.join(['python', *sys.argv])}` on {time.strftime('%Y-%m-%d')}: {processor_name()},")
    print(f"{os.cpu_count()} cores, threads: {threads}, load {load} (1, 5, 15 min) at the start;")
    print(f"Python {platform.python_version()}, torch {torch.__version__},")
    print(
        f"{torch.backends.cpu.get_cpu_capability()}, OMP_WAIT_POLICY={os.environ.get('OMP_WAIT_POLICY', 'unset')};"
    )
    print(f"float32, nano (d = {model.width}, {model.depth} blocks, patches of {model.patch_px} px),")
    print(f"batch {batch}, {len(STAINS)} channels, crop {CROP_PX} px.\n")


def processor_name() -> str:
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8").splitlines() if facts.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def check_that_all_agree(weights: MixerWeights) -> None:
    for grid in (Grid(3, 4, 2, "rwc"), Grid(3, 4, 2, "wrc")):
        xz = torch.randn(2, grid.length, 2 * weights.D.shape[1], generator=torch.Generator().manual_seed(0))
        expected = naive_pooled_mixer(xz, weights, grid)
        for mixer in (eager_pooled_mixer, token_major_pooled_mixer):
            torch.testing.assert_close(mixer(xz, weights, grid), expected, rtol=1e-4, atol=1e-5)


def all_mixer_cases(weights: MixerWeights, batch: int) -> Cases:
    mixers: dict[str, Mixer] = {"eager": eager_pooled_mixer, "token-major": token_major_pooled_mixer}
    cases: Cases = {}
    orders: dict[str, Order] = {"even": "rwc", "odd": "wrc"}
    for block, order in orders.items():
        grid = Grid(*GRID, len(STAINS), order)
        cases |= mixer_cases(f"mixer of {block} blocks", mixers, weights, batch, grid)
    return cases


def mixer_cases(title: str, mixers: dict[str, Mixer], weights: MixerWeights, batch: int, grid: Grid) -> Cases:
    xz = torch.randn(batch, grid.length, 2 * weights.D.shape[1], requires_grad=True)
    cases: Cases = {}
    for name, mixer in mixers.items():
        cases[f"{title}, {name}, forward"] = partial(forward, mixer, xz, weights, grid)
        cases[f"{title}, {name}, forward and backward"] = partial(forward_backward, mixer, xz, weights, grid)
    return cases


def forward(mixer: Mixer, xz: Tensor, weights: MixerWeights, grid: Grid) -> None:
    with torch.no_grad():
        mixer(xz, weights, grid)


def forward_backward(mixer: Mixer, xz: Tensor, weights: MixerWeights, grid: Grid) -> None:
    torch.autograd.grad(mixer(xz, weights, grid).sum(), [xz, *weights])


def model_cases(model: MaskedAutoencoder, batch: int) -> Cases:
    image = torch.randn(batch, len(STAINS), CROP_PX, CROP_PX)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def embed() -> None:
        with torch.no_grad():
            model.encoder.features(image, STAINS)

    def train(settings: MaskingSettings, step: int) -> None:
        mask = draw_mask(settings, batch=batch, channels=len(STAINS), grid=GRID, seed=0, step=step)
        optimizer.zero_grad(set_to_none=True)
        model(image, STAINS, mask, settings.fourier_weight).loss.backward()
        optimizer.step()

    channel_steps = {
        int(mask.hidden[0, :, 0, 0].sum()): step
        for step in reversed(range(64))
        if (mask := draw_mask(MaskingSettings(channel_steps=1.0), batch=1, channels=5, grid=GRID, seed=0, step=step))
        .kind == "channel"
    }  # fmt: skip
    by_channel = {
        f"training step, {hidden} of 5 channels hidden": partial(
            train, MaskingSettings(channel_steps=1.0), channel_steps[hidden]
        )
        for hidden in sorted(channel_steps)
    }
    return {
        f"features of {batch} crops": embed,
        "training step, 75 % of the patches hidden": partial(train, MaskingSettings(channel_steps=0.0), 0),
        **by_channel,
    }


def report(cases: Cases, repeats: int, seconds: float) -> None:
    walls: dict[str, list[float]] = {name: [] for name in cases}
    processors: dict[str, list[float]] = {name: [] for name in cases}
    began = time.perf_counter()
    for turn in range(WARM_UP + repeats):
        if turn >= WARM_UP + FEWEST and time.perf_counter() - began > seconds:
            break
        for name, run in cases.items():
            started, started_processor = time.perf_counter(), time.process_time()
            run()
            if turn >= WARM_UP:
                walls[name].append(1000 * (time.perf_counter() - started))
                processors[name].append(1000 * (time.process_time() - started_processor))
    for name in cases:
        low, middle, high = statistics.quantiles(walls[name], n=4)
        processor = statistics.median(processors[name])
        print(f"| {name} | {middle:.0f} ({low:.0f} to {high:.0f}) | {processor:.0f} | {len(walls[name])} |")


if __name__ == "__main__":
    main()
