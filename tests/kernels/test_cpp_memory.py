"""No C++ kernel touches memory that is not its own: its tests once more, under the address sanitizer."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SANITIZED = "g++ -fsanitize=address,undefined -fno-sanitize-recover=all"
BEYOND_THE_END = """
import torch
from cellvim_kernels.add_rms_norm import cpp
from cellvim_kernels.cpp.call import call
rows = torch.zeros(4, 8)
scale = torch.zeros(4)
call("cellvim_add_rms_norm", (5, 8, 1, rows, rows, torch.ones(8), rows.clone(), rows.clone(), scale))
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
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
        "CELLVIM_CACHE": str(tmp_path),
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python itself leaves memory behind when it ends
        "OMP_NUM_THREADS": "2",
    }
    return os.environ | own


def test_the_kernels_stay_inside_their_tensors(environment: dict[str, str]) -> None:
    tests = Path(__file__).with_name("test_cpp.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]


def test_a_row_too_many_is_noticed(environment: dict[str, str]) -> None:
    """The check can fail: a call that lies about the number of rows."""
    command = [sys.executable, "-c", BEYOND_THE_END]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert "AddressSanitizer: heap-buffer-overflow" in ended.stderr
