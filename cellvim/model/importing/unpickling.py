"""Reading a foreign checkpoint without running anything that it says.

`torch.load(weights_only=True)` builds tensors and plain containers only. What Lightning files carry beside them is
listed here by name and replaced by stand-ins that keep values and do nothing. Any other name stops the reading.
"""

import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from os import sysconf
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import torch

from cellvim.errors import InputError, NotFoundError, OutOfMemoryError

ZIP_START = b"PK\x03\x04"
PICKLE_START = b"\x80"
PROGRAM_MEMBER = "constants.pkl"
HINT = "cellvim never runs code from a file; ask its authors for weights alone, torch.save(model.state_dict(), ...)"
SHOWN_CHARACTERS = 160


class Inert:
    """Stands for an object of a listed class: what it was made from, and nothing that it can do.

    Args:
        arguments: What its class would have been called with.
    """

    arguments: tuple[object, ...]
    content: object

    # The reader may make an object without initialising it.
    def __new__(cls, *arguments: object) -> "Inert":
        made = super().__new__(cls)
        made.arguments, made.content = arguments, None
        return made

    def __setstate__(self, content: object) -> None:
        self.content = content


class InertMapping:
    """Becomes a plain dict, the only mapping that the reader fills."""

    def __new__(cls, *arguments: object) -> Any:  # the reader asks for an object, and gets a dict
        return dict(arguments[0]) if arguments and isinstance(arguments[0], dict) else {}


class InertSequence:
    """Becomes a plain list, the only sequence that the reader fills."""

    def __new__(cls, *arguments: object) -> Any:
        return list(arguments[0]) if arguments and isinstance(arguments[0], list | tuple) else []


STAND_INS: dict[str, type] = {
    "argparse.Namespace": Inert,
    "types.SimpleNamespace": Inert,
    "typing.Any": Inert,
    "collections.defaultdict": InertMapping,
    "collections.deque": InertSequence,
    "builtins.dict": InertMapping,
    "builtins.list": InertSequence,
    **dict.fromkeys(
        (
            "lightning.fabric.utilities.data.AttributeDict",
            "lightning.pytorch.utilities.parsing.AttributeDict",
            "lightning_fabric.utilities.data.AttributeDict",
            "pytorch_lightning.utilities.parsing.AttributeDict",
        ),
        InertMapping,
    ),
    **{f"builtins.{name}": Inert for name in ("tuple", "str", "int", "float", "bool", "bytes", "object")},
    **{
        f"{module}.{name}": Inert
        for module in ("pathlib", "pathlib._local")
        for name in ("Path", "PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")
    },
    **{
        f"omegaconf.{name}": Inert
        for name in (
            "dictconfig.DictConfig", "listconfig.ListConfig", "base.ContainerMetadata", "base.Metadata",
            "nodes.AnyNode", "nodes.StringNode", "nodes.IntegerNode", "nodes.FloatNode", "nodes.BooleanNode",
            "nodes.PathNode", "nodes.BytesNode",
        )
    },
}  # fmt: skip
"""Full name of each class that is not refused, and what stands for it."""

UNREADABLE = (
    RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError, AssertionError, ArithmeticError,
    ImportError, struct.error,
)  # fmt: skip
"""What the reader raises, by chance, on bytes that are no checkpoint."""


def read_pickled(path: Path) -> object:
    """Read a file of `torch.save` as tensors, plain containers and stand-ins.

    Args:
        path: Zip archive, or a pickle of before 2020.

    Raises:
        NotFoundError: No file there.
        InputError: It is no checkpoint, is damaged, or names something that is not listed.
        OutOfMemoryError: It does not fit into memory.
    """
    if not path.is_file():
        raise NotFoundError(
            path, expected="checkpoint", hint="give a .ckpt or .pth file of a published model"
        )
    # An open file, as torch would choose a reader by the ending of a name.
    with path.open("rb") as file:
        _check_container(path, file)
        file.seek(0)
        try:
            with warnings.catch_warnings(), _only_stand_ins():
                # Its remarks are for those who wrote the file.
                warnings.simplefilter("ignore")
                return torch.load(file, map_location="cpu", weights_only=True, mmap=False)
        except pickle.UnpicklingError as error:
            found = f"{path} {_refusal(str(error))}"
            raise InputError(found, hint=HINT) from error
        except UNREADABLE as error:
            found = f"{path} is damaged, or no checkpoint: {_first_line(str(error))}"
            raise InputError(found, hint="download it again, and compare its size or checksum") from error


@contextmanager
def _only_stand_ins() -> Iterator[None]:
    """Replace whatever other packages have declared safe in this process by the list above."""
    others = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals([(stand_in, name) for name, stand_in in STAND_INS.items()])
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(others)


def _check_container(path: Path, file: BinaryIO) -> None:
    size, memory = path.stat().st_size, sysconf("SC_PAGE_SIZE") * sysconf("SC_PHYS_PAGES")
    if size > memory:
        found = f"{path} has {size / 1e9:.1f} GB, this machine {memory / 1e9:.1f} GB of memory"
        raise OutOfMemoryError(found, hint="import it on a larger machine; the result runs anywhere")
    start = file.read(len(ZIP_START))
    if start == ZIP_START:
        _check_archive(path, file, size)
    elif not start.startswith(PICKLE_START):
        found = f"{path} is neither a zip archive nor a pickle, as files of torch.save are"
        raise InputError(
            found, hint="give the .ckpt or .pth file itself, unpacked from any tar or gz around it"
        )


def _check_archive(path: Path, file: BinaryIO, size: int) -> None:
    """Judge an archive by its list of contents; nothing is ever unpacked to disk."""
    try:
        members = zipfile.ZipFile(file).infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        found = f"{path} is a damaged zip archive: {_first_line(str(error))}"
        raise InputError(found, hint="download it again, and compare its size or checksum") from error
    problems = [problem for member in members if (problem := _problem(member))]
    if problems:
        found = f"{path} {problems[0]}"
        raise InputError(found, hint=HINT)
    declared = sum(member.file_size for member in members)
    if declared > size:
        found = f"{path} declares {declared} bytes of content, but has {size}"
        raise InputError(found, hint=HINT)


def printable(text: str) -> str:
    """Text out of a file as it may reach a terminal: control characters written out, and of bounded length."""
    shown = "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text[:SHOWN_CHARACTERS]
    )
    return shown if len(text) <= SHOWN_CHARACTERS else f"{shown}..."


def _problem(member: zipfile.ZipInfo) -> str:
    name = PurePosixPath(member.filename.replace("\\", "/"))
    if name.is_absolute() or ".." in name.parts:
        return f"holds a member that points outside, {printable(member.filename)}"
    if name.name == PROGRAM_MEMBER:
        return "is a TorchScript program, no weights"
    if member.compress_type != zipfile.ZIP_STORED:
        return f"holds a compressed member, {printable(member.filename)}, as torch.save never writes"
    return ""


def _refusal(message: str) -> str:
    named = re.search(r"GLOBAL (\S+)", message)
    if named:
        return f"asks for {printable(named[1])}, which no weights need; nothing was run"
    detail = message.rpartition("WeightsUnpickler error: ")[2]
    return f"holds more than weights, and nothing was run: {_first_line(detail)}"


def _first_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line]
    return printable(lines[0]) if lines else "no reason given"
