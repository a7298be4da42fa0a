"""The numbers of `metrics.jsonl` for TensorBoard, which is an extra."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path

from cellvim.errors import UsageError

FOLDER = "tensorboard"


class ScalarLog:
    """Write RUN/tensorboard.

    Args:
        run: Run folder.
        first: Step that the run goes on from; what an interrupted run wrote of later steps is hidden.
    """

    def __init__(self, run: Path, *, first: int) -> None:
        require_tensorboard()
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run / FOLDER), purge_step=first)

    def write(self, line: Mapping[str, float]) -> None:
        for name, value in line.items():
            if name != "step":
                self._writer.add_scalar(name, value, int(line["step"]))

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def require_tensorboard() -> None:
    """Check that the extra is installed.

    Raises:
        UsageError: It is not.
    """
    if importlib.util.find_spec("tensorboard") is None:
        found = "engine.is_logged_to_tensorboard is on, but TensorBoard is not installed"
        raise UsageError(found, hint="pip install 'cellvim[tensorboard]', or turn it off")
