"""Published models under their own names: the same equations as everywhere here, computed by our blocks."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from cellvim.errors import InputError
from cellvim.model.published.dense import PublishedClassifier
from cellvim.model.published.description import Description, State, describe
from cellvim.model.published.masked import PublishedAutoencoder, PublishedReconstruction
from cellvim.model.published.names import check_names, prefixes
from cellvim.model.published.translate import translate_encoder

__all__ = [
    "Description",
    "PublishedAutoencoder",
    "PublishedClassifier",
    "PublishedReconstruction",
    "build",
    "check_names",
    "describe",
    "translate_encoder",
]

STATE_PREFIX = "state/"


def build(config: Mapping[str, Any], state: Mapping[str, object]) -> nn.Module:
    """Make a published model from its configuration and weights.

    Args:
        config: Words of the published models: `model`, `img_size`, `scan_order`, `scanpath_type`, `collapse_method`
            and so on. What is absent is read from the tensors.
        state: Tensors by published name; a prefix that all names have, such as `state/` or `module.`, is dropped.

    Returns:
        `PublishedClassifier` or, for a masked model, `PublishedAutoencoder`; parameters carry the published names.

    Raises:
        InputError: The configuration asks for other equations, or does not fit the tensors; or something is no tensor.
    """
    tensors = _without_prefix({name.removeprefix(STATE_PREFIX): tensor for name, tensor in state.items()})
    description = describe(config, tensors)
    check_names(tensors, description)
    if description.kind == "masked":
        return PublishedAutoencoder(tensors, description)
    return PublishedClassifier(tensors, description)


def _without_prefix(state: Mapping[str, object]) -> State:
    tensors: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            found = f"{name} is a {type(tensor).__name__}, a tensor is expected"
            raise InputError(found, hint="give the state alone, such as checkpoint['state_dict']")
        tensors[name] = tensor
    common = prefixes(tensors)
    if len(common) != 1:
        return tensors
    others = [name for name in tensors if not name.startswith(common[0])]
    if others:
        found = f"{len(others)} names lack the prefix {common[0]} of the model, such as {others[0]}"
        raise InputError(found, hint="give the tensors of the model alone")
    return {name.removeprefix(common[0]): tensor for name, tensor in tensors.items()}
