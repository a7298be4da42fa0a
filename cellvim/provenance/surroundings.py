"""What a run depends on beside its settings: how it was called, versions, code, and variables that change results."""

import os
import platform
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from cellvim.provenance.hashes import sha256_of_file, sha256_of_json

RECORDED_PACKAGES = (
    "numpy",
    "polars",
    "pyarrow",
    "scikit-learn",
    "tensorstore",
    "tifffile",
    "torch",
    "triton",
    "zarr",
)
RECORDED_VARIABLES = (
    "CELLVIM_KERNEL",
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_VISIBLE_DEVICES",
    "MKL_NUM_THREADS",
    "NVIDIA_TF32_OVERRIDE",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "TRITON_INTERPRET",
)
"""Variables that can change the last bits of a result, or more. No others are recorded: some hold secrets."""
_CODE = frozenset({".py", ".cpp", ".h", ".hpp", ".cu"})


def current_command() -> list[str]:
    """The command as one would type it again; of a Python program that is not ours, its name and arguments."""
    arguments = sys.argv[1:]
    if not is_command_line():
        return [Path(sys.argv[0]).name, *arguments]
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if "MASTER_ADDR" not in os.environ or "RANK" not in os.environ:
        return ["cellvim", *arguments]
    per_node = int(os.environ.get("LOCAL_WORLD_SIZE", str(ranks)))
    nodes = max(1, ranks // max(1, per_node))
    where = ["--standalone"] if nodes == 1 else ["--nnodes", str(nodes)]
    return ["torchrun", *where, "--nproc-per-node", str(per_node), "-m", "cellvim", *arguments]


def is_command_line() -> bool:
    """Whether this process is `cellvim` or `python -m cellvim`, and no other program that uses the library."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return getattr(spec, "name", "") == "cellvim.__main__" or Path(sys.argv[0]).name == "cellvim"


def recorded_environment() -> dict[str, str]:
    return {name: os.environ[name] for name in RECORDED_VARIABLES if name in os.environ}


def package_versions(names: Sequence[str] = RECORDED_PACKAGES) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def code_sha256() -> str:
    """Hash of the source code in use, kernels included: tells two states of one version apart."""
    packages = {"cellvim": Path(__file__).parents[1]}
    kernels = find_spec("cellvim_kernels")
    if kernels is not None and kernels.origin is not None:
        packages["cellvim_kernels"] = Path(kernels.origin).parent
    return sha256_of_json(
        {
            f"{name}/{path.relative_to(folder).as_posix()}": sha256_of_file(path)
            for name, folder in packages.items()
            for path in _code_below(folder)
        }
    )


@cache
def commit() -> str | None:
    """Commit that the code was checked out at, whatever was changed since; None outside of a checkout."""
    git = Path(__file__).parents[2] / ".git"
    try:
        head = (git / "HEAD").read_text(encoding="ascii").strip()
        if not head.startswith("ref: "):
            return head
        name = head.removeprefix("ref: ")
        if (git / name).is_file():
            return (git / name).read_text(encoding="ascii").strip()
        packed = (git / "packed-refs").read_text(encoding="ascii").splitlines()
        return next((line.split(" ")[0] for line in packed if line.endswith(f" {name}")), None)
    except (OSError, UnicodeDecodeError):
        return None


def _code_below(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.suffix in _CODE and "__pycache__" not in path.parts and path.is_file():
            yield path
