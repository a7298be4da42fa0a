"""The tensors of a checkpoint: which of them are the model, and whether they are what they claim to be."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Shaped
from torch import Tensor

from cellvim.errors import InputError
from cellvim.model.importing.unpickling import printable
from cellvim.model.published.names import prefixes

PREFIX = "backbone."
"""Name of the model inside the training module, in the published files."""
STATES, AVERAGED_STATE = ("state_dict", "model_state_dict", "model"), "state_dict_ema"
"""Where a checkpoint keeps its weights; the first that is there counts."""
MOST_STEPS = 2**63
REAL_NUMBERS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
HINT = "give the checkpoint as its authors published it"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a file of weights holds.

    Args:
        state: Tensors by published name, as the file has them.
        prefix: What stood before these names.
        is_averaged: They are the averaged weights.
        left_out: Names of tensors that belong to other parts of the training.
        hyperparameters: All that the file tells beside weights.
        steps: Optimiser steps taken; 0 if not recorded.
    """

    state: dict[str, Shaped[Tensor, "..."]]
    prefix: str
    is_averaged: bool
    left_out: tuple[str, ...]
    hyperparameters: object
    steps: int


def pick_weights(path: Path, content: object, *, use_ema: bool) -> Checkpoint:
    """Find the model in what was read from a file.

    Args:
        path: The file.
        content: From `read_pickled`.
        use_ema: Take the averaged weights, where there are any.

    Raises:
        InputError: There are no weights, they are not tensors, or they are of several models.
    """
    if not isinstance(content, dict):
        found = f"{path} holds one {type(content).__name__}, a dict of tensors is expected"
        raise InputError(found, hint=HINT)
    averaged = content.get(AVERAGED_STATE)
    is_averaged = use_ema and isinstance(averaged, dict) and len(averaged) > 0
    state = _named(path, averaged if is_averaged else _trained(path, content))
    prefix = _prefix(path, state)
    chosen = {name.removeprefix(prefix): state[name] for name in state if name.startswith(prefix)}
    steps = content.get("global_step")
    return Checkpoint(
        state=_plain(path, chosen),
        prefix=prefix,
        is_averaged=is_averaged,
        left_out=tuple(name for name in state if not name.startswith(prefix)),
        hyperparameters=content.get("hyper_parameters"),
        steps=steps if isinstance(steps, int) and 0 < steps < MOST_STEPS else 0,
    )


def as_float32(path: Path, state: Mapping[str, Shaped[Tensor, "..."]]) -> dict[str, Shaped[Tensor, "..."]]:
    """Convert tensors whose names and shapes have been checked, so that none is larger than the file.

    Raises:
        InputError: A tensor holds NaN or infinity.
    """
    for name, tensor in state.items():
        if not bool(tensor.isfinite().all()):
            found = f"{path}: {name} of shape {tuple(tensor.shape)} holds NaN or infinity"
            raise InputError(found, hint=HINT)
    return {name: tensor.detach().to(torch.float32).contiguous() for name, tensor in state.items()}


def _trained(path: Path, content: Mapping[object, object]) -> object:
    for key in STATES:
        if content.get(key) is not None:
            if not isinstance(content[key], dict) or not content[key]:
                found = f"{path} has no weights under {key}"
                raise InputError(found, hint=HINT)
            return content[key]
    # A file of weights alone has no parts.
    return content


def _named(path: Path, state: object) -> dict[str, object]:
    """What lies under each name; names are made fit to be shown here, where they enter."""
    named: dict[str, object] = {}
    for name, value in state.items() if isinstance(state, dict) else ():
        if not isinstance(name, str):
            found = f"{path} names a tensor by a {type(name).__name__}, a text is expected"
            raise InputError(found, hint=HINT)
        named[printable(name)] = value
    if not named:
        found = f"{path} holds no weights"
        raise InputError(found, hint=HINT)
    return named


def _prefix(path: Path, state: Mapping[str, object]) -> str:
    candidates = prefixes(state)
    if len(candidates) == 1:
        return candidates[0]
    if PREFIX in candidates or (not candidates and any(name.startswith(PREFIX) for name in state)):
        return PREFIX
    if candidates:
        shown = ", ".join(prefix or "none" for prefix in candidates[:4])
        found = f"{path} holds {len(candidates)} models, by the prefixes of their names: {shown}"
        raise InputError(found, hint="save the one that you mean in a file of its own")
    return ""


def _plain(path: Path, state: Mapping[str, object]) -> dict[str, Shaped[Tensor, "..."]]:
    plain: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            found = f"{path}: {name} is a {type(tensor).__name__}, a tensor is expected"
            raise InputError(found, hint=HINT)
        problem = _problem(tensor)
        if problem:
            found = f"{path}: {name} of shape {tuple(tensor.shape)} {problem}"
            raise InputError(found, hint=HINT)
        plain[name] = tensor
    claimed, size = (
        sum(tensor.numel() * tensor.element_size() for tensor in plain.values()),
        path.stat().st_size,
    )
    if claimed > size:
        found = f"{path}: its tensors claim {claimed} bytes of values, but the file has {size}"
        raise InputError(found, hint=HINT)
    return plain


def _problem(tensor: Tensor) -> str:
    """What is wrong with a tensor, judged before any of its values is touched."""
    # A file may give a tensor attributes that hide its methods.
    if vars(tensor):
        return f"carries more than numbers: {printable(', '.join(sorted(map(str, vars(tensor)))))}"
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        return "is not a plain tensor"
    if tensor.dtype not in REAL_NUMBERS:
        return f"holds {tensor.dtype} instead of real numbers"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return "claims more values than the file holds"
    return ""
