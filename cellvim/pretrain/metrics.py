"""`metrics.jsonl`: one line per step, however often the run was interrupted; and TensorBoard, if asked for."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from cellvim.atomic import flush_to_disk, write_bytes
from cellvim.pretrain.tensorboard import ScalarLog


class Metrics:
    """Numbers of each step.

    Args:
        path: The file, cut down to the steps that are done; None writes nothing, as another rank does.
        first: Step that the run goes on from.
        scalars: Where else they go.
    """

    def __init__(self, path: Path | None, *, first: int, scalars: ScalarLog | None = None) -> None:
        self.path = path
        self.scalars = scalars
        self._file = _reopened(path, first) if path else None

    def write(self, line: Mapping[str, float]) -> None:
        if self._file:
            self._file.write(json.dumps(line) + "\n")
        if self.scalars:
            self.scalars.write(line)

    def flush(self) -> None:
        if self._file:
            self._file.flush()
        if self.scalars:
            self.scalars.flush()

    def secure(self) -> None:
        """Force all lines to stable storage; a checkpoint must never be ahead of them."""
        self.flush()
        if self.path:
            flush_to_disk(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file:
            self._file.close()
        if self.scalars:
            self.scalars.close()


def _reopened(path: Path, first: int) -> TextIO:
    kept = path.read_bytes().splitlines(keepends=True)[:first] if first and path.exists() else []
    write_bytes(path, b"".join(kept))
    return path.open("a", encoding="utf-8")
