"""The selective scan of the package mamba-ssm: other people's CUDA code, to compare with.

Nothing of ours takes part but the order of axes: mamba-ssm scans (batch, E, P) from left to right, so that the
backward direction is the scan of a reversed copy.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from cellvim_kernels.selective_scan.inputs import ScanInputs


class MambaUnavailableError(ImportError):
    """mamba-ssm is not installed, or cannot be loaded here."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(
            f"mamba-ssm is unavailable ({reason}). It needs Linux, an NVIDIA GPU and nvcc; install it after torch: "
            "pip install --no-build-isolation 'cellvim[mamba]'. Or choose another backend with CELLVIM_KERNEL",
            name="mamba_ssm",
        )


def why_unavailable() -> str | None:
    """Say in a few words why mamba-ssm cannot be used; None if it can."""
    try:
        selective_scan_function()
    except MambaUnavailableError as error:
        return error.reason
    return None if torch.cuda.is_available() else "PyTorch sees no NVIDIA GPU"


def mamba_selective_scan(inputs: ScanInputs) -> Float[Tensor, "2 b P E"]:
    """Scan both directions, with gradients; `naive_selective_scan` defines the result.

    Args:
        inputs: Both directions, in natural order; float32, on an NVIDIA GPU.

    Raises:
        MambaUnavailableError: mamba-ssm is not installed, or cannot be loaded here.
    """
    scan = selective_scan_function()
    results = []
    for direction in (0, 1):
        u, delta, A, B, C = (tensor[direction] for tensor in inputs)
        by_channel = [_channel_first(tensor, direction) for tensor in (u, delta, B, C)]
        y = scan(by_channel[0], by_channel[1], A, by_channel[2], by_channel[3], delta_softplus=False)
        results.append(y if direction == 0 else y.flip(2))
    return torch.stack(results).transpose(2, 3)


def selective_scan_function() -> Callable[..., Tensor]:
    """Load mamba-ssm's scan.

    Raises:
        MambaUnavailableError: mamba-ssm is not installed, or cannot be loaded here.
    """
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    # Extensions that were built for another torch or CUDA fail with OSError.
    except (ImportError, OSError) as error:
        raise MambaUnavailableError(str(error).partition("\n")[0]) from error
    found: Callable[..., Tensor] = selective_scan_fn
    return found


def _channel_first(tensor: Float[Tensor, "b P X"], direction: int) -> Float[Tensor, "b X P"]:
    turned = tensor.transpose(1, 2)
    # The kernel wants positions side by side in memory.
    return turned.contiguous() if direction == 0 else turned.flip(2).contiguous()
