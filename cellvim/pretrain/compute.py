"""How a step is computed: in which numbers, compiled or not, with what kept for the way back."""

import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from cellvim.config import EngineSettings
from cellvim.errors import CellvimError, UsageError

COMPILERS = {"cpu": ("CXX", "g++"), "cuda": ("CC", "gcc")}
"""Environment variable that names the compiler which `torch.compile` calls, and what it calls otherwise."""
COMPILE_HINT = "set engine.is_compiled to false; results are the same up to rounding"


class CompileError(CellvimError):
    """`torch.compile` cannot work on this machine."""


def prepare_model(model: nn.Module, engine: EngineSettings, device: torch.device) -> None:
    """Set what is recomputed, and compile block by block, which leaves all names as they are.

    Raises:
        CompileError: There is no compiler.
    """
    for module in model.modules():
        if hasattr(module, "is_checkpointed"):
            setattr(module, "is_checkpointed", engine.is_checkpointed)  # noqa: B010 - of modules that know it
    if not engine.is_compiled:
        return
    variable, usual = COMPILERS[device.type]
    compiler = os.environ.get(variable, usual)
    if shutil.which(compiler) is None:
        found = f"engine.is_compiled is on, but there is no compiler {compiler} on this machine"
        raise CompileError(found, hint=f"install one, or name it in {variable}; or {COMPILE_HINT}")
    blocks = [block for module in model.modules() for block in getattr(module, "blocks", ())]
    for block in blocks:
        # The number of kept tokens changes from step to step: one compilation for all of them.
        block.compile(dynamic=True)


@contextmanager
def explain_compile_failure() -> Iterator[None]:
    """Turn a failed compilation into an error that says what to do.

    Raises:
        CompileError: `torch.compile` gave up.
    """
    try:
        yield
    except RuntimeError as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        reason = str(error).strip().partition("\n")[0]
        found = f"torch.compile failed: {type(error).__name__}: {reason}"
        raise CompileError(found, hint=COMPILE_HINT) from error


def choose_precision(engine: EngineSettings, device: torch.device) -> torch.dtype:
    """Numbers of the large products: bf16 on a GPU that has it, unless told otherwise.

    Raises:
        UsageError: bf16 is asked for on a GPU that lacks it.
    """
    has_bf16 = device.type == "cpu" or torch.cuda.is_bf16_supported(including_emulation=False)
    if engine.precision == "bf16" and not has_bf16:
        found = f"{torch.cuda.get_device_name(device)} has no bf16"
        raise UsageError(found, hint="use --precision fp32")
    is_wanted = engine.precision == "bf16" or (engine.precision == "auto" and device.type == "cuda")
    return torch.bfloat16 if is_wanted and has_bf16 else torch.float32


def computing_in(dtype: torch.dtype, device: torch.device) -> torch.autocast:
    """Autocast the large products; float32 switches it off."""
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory in use so far: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def describe_device(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
