"""The benchmark of training runs as its page says, and writes what the page holds."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "training.py"


@pytest.mark.long
def test_the_quick_benchmark_writes_facts_and_a_row_for_each_way_to_train(tmp_path: Path) -> None:
    page = tmp_path / "training_speed.md"
    command = [
        sys.executable,
        str(SCRIPT),
        "--quick",
        "--threads",
        "1",
        "--device",
        "cpu",
        "--docs",
        str(page),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    title, _, rest = page.read_text().partition("\n\n")
    facts, _, table = rest.partition("\n\n")
    assert title == "# Speed and memory of training"
    assert all(word in facts for word in ("--quick", "cores", "threads: 1", "torch", "GiB"))
    head, rule, *rows = table.splitlines()
    assert set(rule) == {"|", "-"}
    assert len(rows) == 2
    assert all(row.count("|") == head.count("|") for row in rows)
    plain, checkpointed = ([cell.strip() for cell in row.split("|")] for row in rows)
    assert (plain[4], checkpointed[4]) == ("no", "yes")
    assert all(float(row[8]) > 0 and float(row[9]) > 0 for row in (plain, checkpointed))
