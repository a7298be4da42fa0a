"""The CPU benchmark runs as its page says, and prints what the page can take over."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "cpu.py"


def test_the_quick_benchmark_prints_facts_and_a_markdown_table() -> None:
    command = [sys.executable, str(SCRIPT), "--quick", "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    facts, _, table = done.stdout.partition("\n\n")
    assert all(word in facts for word in ("--quick", "cores", "threads: 1", "torch", "OMP_WAIT_POLICY"))
    head, rule, *rows = table.splitlines()
    assert rule == "|---|---|---|---|"
    assert len(rows) >= 10
    assert all(row.count("|") == head.count("|") == 5 for row in rows)
    assert any("eager" in row for row in rows)
    assert any("training step" in row for row in rows)
