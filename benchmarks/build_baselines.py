"""Build the CUDA kernels of mamba-ssm and causal-conv1d for one GPU architecture, from their source packages.

    export MAMBA_SKIP_CUDA_BUILD=TRUE CAUSAL_CONV1D_SKIP_CUDA_BUILD=TRUE PIP_NO_BINARY=:all:
    python -m pip download --no-deps --no-build-isolation mamba-ssm==2.3.2.post1 causal-conv1d==1.7.0
    python -m benchmarks.build_baselines mamba_ssm-*.tar.gz causal_conv1d-*.tar.gz --into baselines
    PYTHONPATH=baselines:kernels:. python -m benchmarks.gpu

Their own setup compiles for nine architectures, which takes as many times as long. Needs nvcc of torch's CUDA, ninja
and setuptools; at run time they need einops and packaging besides.
"""

import argparse
import os
import shutil
import tarfile
from pathlib import Path

from torch.utils import cpp_extension

EXTENSIONS = {"mamba_ssm": "selective_scan_cuda", "causal_conv1d": "causal_conv1d_cuda"}
"""Compiled module of each package."""
NVCC_FLAGS = (
    "-O3",
    "-U__CUDA_NO_HALF_OPERATORS__",
    "-U__CUDA_NO_HALF_CONVERSIONS__",
    "-U__CUDA_NO_BFLOAT16_OPERATORS__",
    "-U__CUDA_NO_BFLOAT16_CONVERSIONS__",
    "-U__CUDA_NO_BFLOAT162_OPERATORS__",
    "-U__CUDA_NO_BFLOAT162_CONVERSIONS__",
    "--expt-relaxed-constexpr",
    "--expt-extended-lambda",
    "--use_fast_math",
)
"""As their own setup has them."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sources", nargs="+", type=Path, help="source packages (.tar.gz)")
    parser.add_argument("--into", type=Path, required=True, help="folder to put on PYTHONPATH")
    parser.add_argument("--architecture", default="9.0", help="compute capability; 9.0 is Hopper")
    arguments = parser.parse_args()
    os.environ["TORCH_CUDA_ARCH_LIST"] = arguments.architecture
    for source in arguments.sources:
        package, folder = unpack(source, arguments.into / "src")
        shutil.copytree(folder / package, arguments.into / package, dirs_exist_ok=True)
        build(package, folder, arguments.into)


def unpack(source: Path, into: Path) -> tuple[str, Path]:
    """Name of the package, and the folder that it was unpacked to."""
    with tarfile.open(source) as archive:
        archive.extractall(into, filter="data")
    folder = into / source.name.removesuffix(".tar.gz")
    return folder.name.partition("-")[0], folder


def build(package: str, folder: Path, into: Path) -> None:
    """Compile a package's extension, and put it beside the package."""
    name = EXTENSIONS[package]
    sources = sorted(path for path in (folder / "csrc").rglob("*") if path.suffix in (".cpp", ".cu"))
    scratch = folder / "build"
    scratch.mkdir(exist_ok=True)
    cpp_extension.load(
        name,
        [str(path) for path in sources],
        extra_cflags=["-O3"],
        extra_cuda_cflags=list(NVCC_FLAGS),
        extra_include_paths=[str(path) for path in sorted({path.parent for path in sources})],
        build_directory=str(scratch),
        is_python_module=False,
    )
    shutil.copy(scratch / f"{name}.so", into)


if __name__ == "__main__":
    main()
