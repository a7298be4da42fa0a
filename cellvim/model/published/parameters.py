"""A module that shows parameters by their published names, and computes with one of ours."""

from torch import Tensor, nn
from torch.func import functional_call

from cellvim.model.published.description import Description, State

FIXED = ("decoder_pos_embed",)
"""Tensors that training never changes; so are the positions of masked models."""


class PublishedModel(nn.Module):
    """Parameters by published name, in the dtype of the file; values are copies.

    Args:
        state: Tensors by published name.
        description: What they are.
        inner: Computes with our names; it has no part in `state_dict`, and its own weights may lie nowhere
            (device `meta`).
    """

    def __init__(self, state: State, description: Description, inner: nn.Module) -> None:
        super().__init__()
        self.description = description
        # A tuple hides it from the registry: its parameters are those of this module, under other names.
        self._inner = (inner,)
        is_masked = description.kind == "masked"
        for name, tensor in state.items():
            is_fixed = name in FIXED or (is_masked and name == "pos_embed")
            _register(self, name, nn.Parameter(tensor.detach().clone(), requires_grad=not is_fixed))

    @property
    def by_name(self) -> dict[str, nn.Parameter]:
        return dict(self.named_parameters())

    def compute(self, translated: dict[str, Tensor], *inputs: object) -> object:
        """Call the inner module with weights under our names; each must fit one of its own."""
        result: object = functional_call(self._inner[0], translated, inputs, strict=True)
        return result


def _register(root: nn.Module, name: str, parameter: nn.Parameter) -> None:
    *path, leaf = name.split(".")
    module = root
    for part in path:
        if not hasattr(module, part):
            module.add_module(part, nn.Module())
        module = module.get_submodule(part)
    module.register_parameter(leaf, parameter)
