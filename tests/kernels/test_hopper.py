"""Every Triton kernel, compiled for Hopper: no spills, no local memory, registers within their bounds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
KERNELS = 10
ROOT = Path(__file__).parents[2]

# In a process of its own: this one may have Triton in its interpreter.
pytest.importorskip("triton", reason="needs Triton, which exists for Linux alone")


def run(*command: str, interpret: bool = False) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_INTERPRET": "1"} if interpret else {}
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.timeout(900)
def test_kernels_keep_to_their_bounds() -> None:
    """Each kernel in its first case; `make hopper` compiles all cases."""
    result = run("-m", "benchmarks.hopper", "--json", "--first")
    assert result.returncode == 0, result.stderr
    costs = json.loads(result.stdout)
    names = [cost["name"] for cost in costs]
    assert len(set(names)) == len(names) == KERNELS
    for operation in ("conv_pool", "scan", "expand_gate", "RMSNorm"):
        assert any(operation in name for name in names), operation
    for cost in costs:
        assert (cost["stack"], cost["local"], cost["spills"]) == (0, 0, 0), cost
        assert 0 < cost["registers"] <= cost["bound"], cost
        assert cost["instructions"] > 0, cost


def test_the_check_finds_a_kernel_beyond_its_bound() -> None:
    code = (
        "from dataclasses import replace; from benchmarks import hopper; "
        "small = replace(hopper.EXPAND_GATE[-1], registers=1); hopper.check([hopper.cost_of(small)])"
    )
    result = run("-c", code)
    assert result.returncode == 1
    assert "sum_cells fp32" in result.stderr
    assert "bound 1" in result.stderr


def test_the_interpreter_is_refused() -> None:
    result = run("-m", "benchmarks.hopper", interpret=True)
    assert result.returncode == 1
    assert "unset it" in result.stderr
