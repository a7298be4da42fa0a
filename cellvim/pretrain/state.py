"""A training run's whole state as one safetensors file, so that resuming is exact."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.optim import AdamW

from cellvim.atomic import remove_leftovers
from cellvim.errors import NotFoundError
from cellvim.model.tensors import HEADER_KEY, write_tensors
from cellvim.pretrain.objective import Objective

logger = logging.getLogger(__name__)

KEPT = 2
"""Checkpoints kept: the newest, and the one before it in case the disk loses the newest."""


@dataclass
class TrainingState:
    """Everything that the next step depends on besides (settings, seed, step)."""

    model: Objective
    ema: Objective
    optimizer: AdamW
    step: int = 0
    """Steps taken so far."""

    def save(self, folder: Path, *, identity: str) -> Path:
        """Write `step-00000100.safetensors`, then drop all but the newest two."""
        path = _checkpoint_path(folder, self.step)
        write_tensors(path, self._tensors(), header={"step": self.step, "identity": identity})
        for old in list_checkpoints(folder)[:-KEPT]:
            old.unlink()
        return path

    def load_newest(self, folder: Path, *, identity: str) -> int:
        """Go to the newest checkpoint that can be read and was made by the same run; stay put if none is.

        Returns:
            Steps taken so far.
        """
        remove_leftovers(folder)
        for path in reversed(list_checkpoints(folder)):
            if self._load(path, identity):
                break
        return self.step

    def load_step(self, folder: Path, step: int, *, identity: str) -> None:
        """Go where the first rank is.

        Raises:
            NotFoundError: Its checkpoint cannot be read from here.
        """
        path = _checkpoint_path(folder, step)
        if not self._load(path, identity):
            hint = "the run folder must lie on a file system that all ranks see"
            raise NotFoundError(path, expected=f"checkpoint of step {step}", hint=hint)

    def _load(self, path: Path, identity: str) -> bool:
        try:
            with safe_open(path, framework="pt") as file:
                header = json.loads((file.metadata() or {}).get(HEADER_KEY, "{}"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        except (SafetensorError, OSError, ValueError) as error:
            logger.warning("%s cannot be read (%s): falling back to the checkpoint before it", path, error)
            return False
        if header.get("identity") != identity:
            return False
        self.model.load_state_dict(_section(tensors, "model"))
        self.ema.load_state_dict(_section(tensors, "ema"))
        self._restore_optimizer(tensors)
        self.step = int(header["step"])
        return True

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"model/{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"ema/{name}": value for name, value in self.ema.state_dict().items()}
        for index, slots in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{slot}": value for slot, value in slots.items()}
        return tensors

    def _restore_optimizer(self, tensors: dict[str, Tensor]) -> None:
        slots: dict[int, dict[str, Tensor]] = {}
        for name, value in _section(tensors, "optimizer").items():
            index, slot = name.split("/")
            slots.setdefault(int(index), {})[slot] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": slots})


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints of a run, oldest first."""
    return sorted(folder.glob("step-*.safetensors"))


def _checkpoint_path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}.safetensors"


@torch.no_grad()
def update_ema(ema: nn.Module, model: nn.Module, decay: float) -> None:
    """Move every weight of `ema` a share `1 - decay` of the way to `model`."""
    for average, current in zip(ema.parameters(), model.parameters(), strict=True):
        average.lerp_(current, 1 - decay)


def _section(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    prefix = f"{name}/"
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
