"""The CPU benchmark runs as its page says, and leaves a report with every number that was promised."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECTIONS = ("rates", "agreement", "speed", "memory", "stages", "tokens")
VARIANTS = ("eager composition", "plain torch", "fused C++", "ViT-S")


@pytest.mark.long
def test_the_quick_benchmark_writes_every_table(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.cpu", "--quick", "--threads", "1", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    report = (tmp_path / "report.md").read_text()
    assert report.strip() == done.stdout.strip()
    assert "python -m benchmarks.cpu --quick" in report
    assert (tmp_path / "cpu_tokens.png").stat().st_size > 1000
    found = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in SECTIONS}
    assert len(found["speed"]["goals"]) == 8
    titles = [table["title"] for table in found["speed"]["tables"]]
    assert [title.split(",")[0] for title in titles] == ["forward", "training step"] * 2
    for table in (*found["speed"]["tables"], *found["memory"]["tables"]):
        assert [row[0].split(", ")[-1] for row in table["rows"]][:3] == list(VARIANTS[:3])
        assert table["rows"][3][0].startswith(VARIANTS[3])
