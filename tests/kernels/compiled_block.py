"""Compile a block of the encoder into one graph, and compare it with itself uncompiled: dense and masked, trained."""

import os
import sys

import torch
from torch import Tensor

from cellvim.config import ModelSettings
from cellvim.model.mixer import Block
from cellvim_kernels import Grid, Kept, Layout


def main(backend: str, device: str) -> None:
    os.environ["CELLVIM_KERNEL"] = backend
    settings = ModelSettings(width=32, depth=2, state_size=4)
    block = Block(32, settings, depth=2, generator=torch.Generator().manual_seed(0)).to(device)
    compiled = torch.compile(block, fullgraph=True, dynamic=True, backend="aot_eager")
    generator = torch.Generator().manual_seed(1)
    update, residual = (torch.randn(2, 12, 32, generator=generator).to(device) for _ in range(2))
    longer = [torch.randn(2, 24, 32, generator=generator).to(device) for _ in range(2)]
    compare(compiled, block, *longer, Grid(3, 4, 2))
    ids = torch.arange(12).expand(2, -1).to(device)
    for layout in (
        Grid(2, 3, 2, "wrc"),
        Kept.from_ids(ids, Grid(3, 3, 2, "wrc")),
        Kept.from_ids(ids, Grid(2, 6, 2)),
    ):
        compare(compiled, block, update, residual, layout)


def compare(
    compiled: torch.nn.Module, block: torch.nn.Module, update: Tensor, residual: Tensor, layout: Layout
) -> None:
    found = results(compiled, update, residual, layout)
    for mine, truth in zip(found, results(block, update, residual, layout), strict=True):
        torch.testing.assert_close(mine, truth, rtol=0, atol=0)


def results(block: torch.nn.Module, update: Tensor, residual: Tensor, layout: Layout) -> list[Tensor]:
    tokens = [tensor.detach().clone().requires_grad_() for tensor in (update, residual)]
    mixed, stream = block(*tokens, layout)
    given = [*tokens, *block.parameters()]
    return [mixed, stream, *torch.autograd.grad((mixed + stream).square().sum(), given)]


if __name__ == "__main__":
    main(*sys.argv[1:])
