"""Checkpoints that try to run code, to fill the memory or to write elsewhere: refused in one line, nothing happens."""

import argparse
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cellvim.errors import ExitCode
from cellvim.model.importing.unpickling import read_pickled
from pipelines.torture.pickles import (
    Call,
    bare_pickle,
    evaluated,
    executed,
    from_the_hub,
    getattr_chain,
    hyper,
    in_the_average,
    inside_numpy,
    legacy_pickle,
    legacy_tar,
    more_allowed,
    numpy_scalar,
    os_system_by_name,
    popen,
    posix_system,
    rewrite,
    save,
    stack_global,
    state_setter,
)
from tests.model.published_states import IMAGE, random_state


def tensor_in_a_bare_pickle(path: Path, canary: Path) -> None:  # noqa: ARG001
    """Its tensors are pickles of their own, which torch would read without any check."""
    path.write_bytes(pickle.dumps(hyper(0), protocol=2))


def program(path: Path, canary: Path) -> None:  # noqa: ARG001
    save(hyper(0), path)
    rewrite(
        path, lambda _, content: content, **{"constants.pkl": b"\x80\x02).", "code/model.py": b"import os"}
    )


def bomb(path: Path, canary: Path) -> None:  # noqa: ARG001
    save(hyper(0), path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(50_000_000))


def overlapping_bomb(path: Path, canary: Path) -> None:  # noqa: ARG001
    """Every entry of the list of contents points to the same bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", bytes(10_000))
        first = archive.infolist()[0]
        for number in range(50):
            copy = zipfile.ZipInfo(f"archive/data/{number}")
            copy.file_size, copy.compress_size, copy.CRC = first.file_size, first.compress_size, first.CRC
            copy.header_offset = first.header_offset
            archive.filelist.append(copy)
            archive.NameToInfo[copy.filename] = copy
        archive._didModify = True


def huge_tensor(path: Path, canary: Path) -> None:  # noqa: ARG001
    """Four bytes that claim to be four terabytes."""
    save({"state_dict": {"backbone.norm_f.weight": torch.ones(1).expand(10**6, 10**6)}}, path)


def shared_values(path: Path, canary: Path) -> None:  # noqa: ARG001
    """Few values under many names, each of which would become a copy."""
    values = torch.ones(100_000)
    save({"state_dict": {f"backbone.{number}": values for number in range(1000)}}, path)


def many_blocks(path: Path, canary: Path) -> None:  # noqa: ARG001
    save(random_state(IMAGE) | {"layers.99999999.norm.weight": torch.ones(20)}, path)


def more_digits_than_python_reads(path: Path, canary: Path) -> None:  # noqa: ARG001
    save(random_state(IMAGE) | {f"layers.{'9' * 5000}.norm.weight": torch.ones(20)}, path)


def many_answers(path: Path, canary: Path) -> None:  # noqa: ARG001
    """Comparing each with all others would take hours."""
    asked = [{"scanpath_type": str(number)} for number in range(20_000)]
    save({"state_dict": random_state(IMAGE), "hyper_parameters": asked}, path)


def orders_to_the_terminal(path: Path, canary: Path) -> None:  # noqa: ARG001
    save(random_state(IMAGE) | {f"\x1b[2J\x1b]0;owned\x07\n\u202e{'x' * 1000}": torch.ones(2)}, path)


def orders_in_a_class(path: Path, canary: Path) -> None:  # noqa: ARG001
    save(hyper(0), path)
    code = b"\x80\x02c\x1b[2J\x07\nsystem\n."
    rewrite(path, lambda name, content: code if name.endswith("data.pkl") else content)


def orders_in_a_member(path: Path, canary: Path) -> None:  # noqa: ARG001
    save(hyper(0), path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../\x1b[2J\nhint: all is well", b"")


def orders_in_an_attribute(path: Path, canary: Path) -> None:  # noqa: ARG001
    tensor = torch.ones(4)
    vars(tensor)["\x1b[2J\n"] = 1
    save({"state_dict": {"backbone.norm_f.weight": tensor}}, path)


def no_text_for_a_name(path: Path, canary: Path) -> None:  # noqa: ARG001
    save({"state_dict": {1: torch.ones(4)}}, path)


def no_axes(path: Path, canary: Path) -> None:  # noqa: ARG001
    bare = {"patch_embed.proj.weight": torch.tensor(1.0), "pos_embed": torch.tensor(1.0)}
    save({"state_dict": random_state(IMAGE) | bare, "hyper_parameters": {"img_size": 32}}, path)


def short_storage(path: Path, canary: Path) -> None:  # noqa: ARG001
    save({"state_dict": {"backbone.norm_f.weight": torch.ones(1000)}}, path)
    rewrite(path, lambda name, content: content[:8] if "/data/" in name else content)


def outside(path: Path, canary: Path) -> None:
    save(hyper(0), path)
    rewrite(path, lambda _, content: content, **{f"../../../../../../..{canary}": b"written"})


def not_a_number(path: Path, canary: Path) -> None:  # noqa: ARG001
    state = random_state(IMAGE)
    state["norm_f.weight"][3] = torch.nan
    save({"state_dict": state}, path)


def masquerade(path: Path, canary: Path) -> None:  # noqa: ARG001
    """A method of the tensor becomes another function that may be named in a file."""
    tensor = torch.ones(4)
    vars(tensor)["isfinite"] = bytearray
    save({"state_dict": {"backbone.norm_f.weight": tensor}}, path)


REFUSED = {
    masquerade: "carries more than numbers: isfinite",
    posix_system: "asks for posix.system",
    os_system_by_name: "asks for os.system",
    evaluated: "asks for eval",
    executed: "asks for exec",
    popen: "Popen, which no weights need",
    getattr_chain: "asks for getattr",
    legacy_pickle: "asks for posix.system",
    bare_pickle: "asks for posix.system",
    tensor_in_a_bare_pickle: "asks for torch.storage._load_from_bytes",
    legacy_tar: "neither a zip archive nor a pickle",
    inside_numpy: "asks for numpy",
    numpy_scalar: "asks for numpy",
    stack_global: "nothing was run",
    state_setter: "Awakened, which no weights need",
    in_the_average: "asks for eval",
    more_allowed: "asks for torch.serialization.add_safe_globals",
    from_the_hub: "asks for torch.hub.load",
    program: "is a TorchScript program",
    bomb: "compressed member",
    overlapping_bomb: "declares",
    huge_tensor: "claims more values than the file holds",
    shared_values: "its tensors claim 400000000 bytes of values",
    many_blocks: "layers.99999999 is the number of a block, but there are 45 tensors",
    more_digits_than_python_reads: "layers.999999999 is the number of a block",
    many_answers: "scanpath_type more than once: '",
    orders_to_the_terminal: r"not expected: \x1b[2J\x1b]0;owned\x07\n\u202exxx",
    orders_in_a_class: r"asks for \x1b[2J\x07.system",
    orders_in_a_member: r"points outside, ../\x1b[2J\nhint",
    orders_in_an_attribute: r"carries more than numbers: \x1b[2J\n",
    no_text_for_a_name: "names a tensor by a int",
    no_axes: "patch_embed.proj.weight has shape ()",
    short_storage: "is damaged",
    outside: "points outside",
    not_a_number: "holds NaN or infinity",
}


@pytest.mark.parametrize("is_forced", [False, True], ids=["", "torch told to trust files"])
@pytest.mark.parametrize("attack", REFUSED, ids=lambda attack: attack.__name__)
def test_refused_in_one_line_and_nothing_happens(
    attack: Callable[[Path, Path], None],
    is_forced: bool,
    tmp_path: Path,
    run: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if is_forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path, canary, out = tmp_path / "evil.ckpt", tmp_path / "canary", tmp_path / "out"
    attack(path, canary)
    assert run("import-checkpoint", path, "--out", out) == ExitCode.BAD_INPUT
    told = capsys.readouterr().err
    assert told.replace("\n", "").isprintable()
    error, hint = told.splitlines()
    assert error.startswith(f"error: {path}")
    assert REFUSED[attack] in error
    assert hint.startswith("hint: ")
    assert not canary.exists()
    assert not out.exists()


def test_the_canary_can_sing(tmp_path: Path) -> None:
    """What is refused is a danger indeed: the plain reader of Python falls for it."""
    canary = tmp_path / "canary"
    bare_pickle(tmp_path / "evil.ckpt", canary)
    pickle.loads((tmp_path / "evil.ckpt").read_bytes())  # noqa: S301 - the danger itself
    assert canary.exists()


def test_listed_containers_are_kept_as_they_are_and_can_do_nothing(tmp_path: Path) -> None:
    options = argparse.Namespace(pool="max")
    vars(options)["__class__"] = "x"
    torch.save({"options": options, "path": Path("/etc/passwd")}, tmp_path / "file.ckpt")
    content: Any = read_pickled(tmp_path / "file.ckpt")
    assert content["options"].content == {"pool": "max", "__class__": "x"}
    assert not isinstance(content["options"], argparse.Namespace)
    assert not isinstance(content["path"], Path)


def test_what_other_packages_trust_is_not_trusted_here(tmp_path: Path) -> None:
    torch.save({"evil": Call(_remember, 1)}, tmp_path / "file.ckpt")
    with torch.serialization.safe_globals([_remember]):
        with pytest.raises(ValueError, match="_remember"):
            read_pickled(tmp_path / "file.ckpt")
        assert _remember in torch.serialization.get_safe_globals()
    assert REMEMBERED == []


REMEMBERED: list[int] = []


def _remember(value: int) -> None:
    REMEMBERED.append(value)
