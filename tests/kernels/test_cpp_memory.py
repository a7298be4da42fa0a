"""No C++ kernel touches memory that is not its own: its tests once more, under the address sanitizer."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# Of the sanitizer of undefined behaviour only what indices are made of: all of it doubles the time to compile.
SANITIZED = "g++ -fsanitize=address,bounds,shift,signed-integer-overflow -fno-sanitize-recover=all"
# Both ways of pooling, with and without a norm, each layout at an odd width, and at least once each operation.
A_THIRD = " or ".join(
    (
        "width33-max or width33-True",
        "width6-mean or width6-False",
        "published and (mean or True)",
        "tied and (wrc or cwr)",
        "scan_matches and not (224 or 63)",
        "add_rms_norm_matches",
        "same_bits and layout1",
    )
)
BEYOND_THE_END = """
import torch
from cellvim_kernels.add_rms_norm import cpp
from cellvim_kernels.cpp.call import call
rows = torch.zeros(4, 8)
scale = torch.zeros(4)
call("cellvim_add_rms_norm", (5, 8, 1, rows, rows, torch.ones(8), rows.clone(), rows.clone(), scale))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of a process that compiles the kernels with sanitizers, once for all tests."""
    if shutil.which("g++") is None:
        pytest.skip("needs g++ with its sanitizers")
    libraries = [
        subprocess.run(
            ["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    if not all(Path(library).is_absolute() for library in libraries):
        pytest.skip("g++ is here, but its sanitizers are not installed")
    own = {
        "CXX": SANITIZED,
        "CELLVIM_CACHE": str(tmp_path_factory.mktemp("cache")),
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python itself leaves memory behind when it ends
        "OMP_NUM_THREADS": "2",
    }
    return os.environ | own


@pytest.mark.slow
def test_the_kernels_stay_inside_their_tensors(environment: dict[str, str]) -> None:
    tests = Path(__file__).with_name("test_cpp.py")
    # Shapes are checked where these tests run by themselves.
    quick = ["-o", "addopts=--import-mode=importlib", f"--confcutdir={tests.parent}", "-k", A_THIRD]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *quick, str(tests)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    summary = ended.stdout.strip().splitlines()[-1]
    assert re.search(r"\b\d+ passed\b", summary), summary
    assert not re.search("skipped|failed|error", summary), summary


def test_a_row_too_many_is_noticed(environment: dict[str, str]) -> None:
    """The check can fail: a call that lies about the number of rows."""
    command = [sys.executable, "-c", BEYOND_THE_END]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert "AddressSanitizer: heap-buffer-overflow" in ended.stderr
