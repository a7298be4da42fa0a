"""Published models under their own names: the same equations as everywhere here, computed by our blocks."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from cellvim.model.published.dense import PublishedClassifier
from cellvim.model.published.description import Description, State, describe
from cellvim.model.published.masked import PublishedAutoencoder, PublishedReconstruction
from cellvim.model.published.names import check_names
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


def build(config: Mapping[str, Any], state: State) -> nn.Module:
    """Make a published model from its configuration and weights.

    Args:
        config: Words of the published models: `model`, `img_size`, `scan_order`, `scanpath_type`, `collapse_method`
            and so on. What is absent is read from the tensors.
        state: Tensors by published name; the prefix `state/` is dropped.

    Returns:
        `PublishedClassifier` or, for a masked model, `PublishedAutoencoder`; parameters carry the published names.

    Raises:
        InputError: The configuration asks for other equations, or does not fit the tensors.
    """
    tensors = {name.removeprefix(STATE_PREFIX): tensor for name, tensor in state.items()}
    description = describe(config, tensors)
    check_names(tensors, description)
    if description.kind == "masked":
        return PublishedAutoencoder(tensors, description)
    return PublishedClassifier(tensors, description)
