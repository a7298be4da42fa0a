"""How time grows with the number of tokens: against attention, and pooled against unpooled."""

import math
from collections.abc import Sequence
from functools import partial

import torch

from benchmarks.eager import kernel_parts
from benchmarks.findings import Cell, Findings, Plot, Table, at_least
from benchmarks.gpu_encoder import CELLVIM, EAGER, VIM, VIM_EAGER, VIT_FLASH, Tokens, infer, variants
from benchmarks.stacks import Size
from benchmarks.timing import Failure, Timing, give_back, interleaved, time_graph

Curve = list[tuple[float, float]]

PATCH_PX = 16
PAPER_SPEED_UP = 1.725
"""Kapse et al. 2025 (arXiv:2502.00594): pooling makes Vim up to 72.5 % faster, at 2048 px."""


def time_tokens(findings: Findings, shapes: Sequence[Tokens], size: Size, device: torch.device) -> None:
    """Time inference from few tokens to many, and find where the scan overtakes attention."""
    parts = kernel_parts()
    names = CELLVIM, VIT_FLASH, EAGER
    curves: dict[str, Curve] = {name: [] for name in names}
    rows: list[list[Cell]] = []
    for shape in shapes:
        made = variants(shape, size, parts)
        tokens = shape.draw(size.width, device)
        runs = {name: partial(infer, made[name]().to(device), tokens) for name in names}
        times = interleaved(runs, device, turns=7, seconds=4)
        rows.append([shape.length, shape.batch, *(str(times[name]) for name in names)])
        for name, time in times.items():
            if isinstance(time, Timing):
                curves[name].append((float(shape.length), 1000 * shape.batch / time.median))
        give_back(device)
    columns = ("tokens", "batch", *(f"{name}, ms" for name in names))
    findings.tables.append(Table("Inference over the number of tokens, bf16, launched", columns, rows))
    findings.plots.append(Plot("tokens", "tokens of an image", "images/s", curves))
    meetings: list[list[Cell]] = [
        [name, crossing(curves[name], curves[VIT_FLASH])] for name in (CELLVIM, EAGER)
    ]
    title = "Tokens from which on it is faster than ViT with flash attention"
    findings.tables.append(Table(title, ("variant", "tokens"), meetings))


def time_images(findings: Findings, shapes: Sequence[Tokens], size: Size, device: torch.device) -> None:
    """Time single images, pooled against unpooled."""
    parts = kernel_parts()
    pairs = [(CELLVIM, VIM)] + ([(EAGER, VIM_EAGER)] if parts.has_scan_kernel else [])
    names = [name for pair in pairs for name in pair]
    rows: list[list[Cell]] = []
    for shape in shapes:
        made = variants(shape, size, parts)
        tokens = shape.draw(size.width, device)
        runs = {name: partial(infer, made[name]().to(device), tokens) for name in names}
        launched = interleaved(runs, device, turns=15, seconds=3)
        best: dict[str, float | None] = {}
        for name in names:
            graph = time_graph(runs[name], device, turns=15, seconds=2)
            best[name] = _best(launched[name], graph)
            rows.append(
                [shape.rows * PATCH_PX, name, str(launched[name]), None if graph is None else str(graph)]
            )
        for pooled, unpooled in pairs:
            fast, slow = best[pooled], best[unpooled]
            factor = None if fast is None or slow is None else slow / fast
            rows.append([shape.rows * PATCH_PX, f"{pooled}: times as fast as unpooled", factor, None])
            if shape is shapes[-1]:
                claim = f"one image of {shape.rows * PATCH_PX} px, {pooled}: times as fast as unpooled"
                findings.goals.append(at_least(claim, factor, PAPER_SPEED_UP))
        give_back(device)
    columns = ("px", "variant", "ms, launched", "ms, CUDA graph")
    findings.tables.append(Table("One image at a time, one token per patch, bf16", columns, rows))


def crossing(mine: Curve, other: Curve) -> float | None:
    """First length from which on `mine` is the faster; straight lines between points of logarithms.

    Returns:
        None if it is the slower at the end, or if a curve has no points; the first length if it always is faster.
    """
    theirs = dict(other)
    leads = [(x, math.log(y / theirs[x])) for x, y in mine if x in theirs]
    if not leads or leads[-1][1] < 0:
        return None
    behind = [number for number, (_, lead) in enumerate(leads) if lead < 0]
    if not behind:
        return leads[0][0]
    (x0, lead0), (x1, lead1) = leads[behind[-1]], leads[behind[-1] + 1]
    share = -lead0 / (lead1 - lead0)
    return math.exp(math.log(x0) + share * (math.log(x1) - math.log(x0)))


def _best(*times: Timing | Failure | None) -> float | None:
    return min((time.median for time in times if isinstance(time, Timing)), default=None)
