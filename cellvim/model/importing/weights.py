"""The tensors of a checkpoint: which of them are the model, and whether they are what they claim to be."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Shaped
from torch import Tensor

from cellvim.errors import InputError

PREFIX = "backbone."
"""Name of the model inside the training module."""
STATE, AVERAGED_STATE = "state_dict", "state_dict_ema"
HINT = "give the checkpoint as its authors published it"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a file of weights holds.

    Args:
        state: Float32 tensors by published name.
        is_averaged: They are the averaged weights.
        left_out: Names of tensors that belong to other parts of the training.
        hyperparameters: All that the file tells beside weights.
        steps: Optimiser steps taken; 0 if not recorded.
    """

    state: dict[str, Shaped[Tensor, "..."]]
    is_averaged: bool
    left_out: tuple[str, ...]
    hyperparameters: object
    steps: int


def pick_weights(path: Path, content: object, *, use_ema: bool) -> Checkpoint:
    """Find the model in what was read from a file.

    Args:
        path: For messages.
        content: From `read_pickled`.
        use_ema: Take the averaged weights, where there are any.

    Raises:
        InputError: There are no weights, or they are damaged.
    """
    if not isinstance(content, dict):
        found = f"{path} holds one {type(content).__name__}, a dict of tensors is expected"
        raise InputError(found, hint=HINT)
    averaged, trained = content.get(AVERAGED_STATE), content.get(STATE)
    is_averaged = use_ema and isinstance(averaged, dict) and len(averaged) > 0
    # A file of weights alone has no parts.
    state = averaged if is_averaged else content if trained is None else trained
    if not isinstance(state, dict) or not state:
        found = f"{path} has no weights under {STATE}"
        raise InputError(found, hint=HINT)
    inside = {name for name in state if str(name).startswith(PREFIX)} or set(state)
    chosen = {str(name).removeprefix(PREFIX): state[name] for name in state if name in inside}
    steps = content.get("global_step")
    return Checkpoint(
        state=_checked(path, chosen),
        is_averaged=is_averaged,
        left_out=tuple(str(name) for name in state if name not in inside),
        hyperparameters=content.get("hyper_parameters"),
        steps=steps if isinstance(steps, int) and steps > 0 else 0,
    )


def _checked(path: Path, state: Mapping[str, object]) -> dict[str, Shaped[Tensor, "..."]]:
    checked = {}
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            found = f"{path}: {name} is a {type(tensor).__name__}, a tensor is expected"
            raise InputError(found, hint=HINT)
        problem = _problem(tensor)
        if problem:
            found = f"{path}: {name} of shape {tuple(tensor.shape)} {problem}"
            raise InputError(found, hint=HINT)
        checked[name] = tensor.detach().to(torch.float32).contiguous()
    return checked


def _problem(tensor: Tensor) -> str:
    """What is wrong with a tensor, judged before any of its values is touched."""
    # A file may give a tensor attributes that hide its methods.
    if vars(tensor):
        return f"carries more than numbers: {', '.join(sorted(vars(tensor)))}"
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        return "is not a plain tensor"
    if not tensor.is_floating_point():
        return f"holds {tensor.dtype} instead of real numbers"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return "claims more values than the file holds"
    if not bool(tensor.isfinite().all()):
        return "holds NaN or infinity"
    return ""
