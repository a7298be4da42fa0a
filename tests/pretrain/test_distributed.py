"""Two ranks take the steps that one takes, end together, and leave one run folder."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from cellvim.config import PretrainSettings
from cellvim.model import load_encoder
from cellvim.pretrain import pretrain
from cellvim.pretrain.state import list_checkpoints
from cellvim.store import PlateReader

TINY = {"width": 16, "depth": 2, "patch_px": 8, "decoder_width": 16, "decoder_depth": 1, "position_grid": 4}
SAME_LOSS = 1e-5
"""Largest relative difference of a step's loss between one rank and two: gradients are sums in another order."""
SAME_WEIGHTS = 1e-3
"""AdamW divides by the size of a gradient, so rounding of a gradient near zero can move a weight by a share of the
learning rate, which is 0.0003 here."""

RUN = """
import os, signal, sys
from cellvim.config import PretrainSettings
from cellvim.pretrain import loop, pretrain
from cellvim.terminal import run_to_exit_code
take = loop.Trainer._take_step
def take_and_signal(self, batches, metrics):
    take(self, batches, metrics)
    metrics.flush()
    if self.state.step == int(sys.argv[2]) and self.ranks.rank == int(sys.argv[3]):
        os.kill(os.getpid(), int(sys.argv[4]))
loop.Trainer._take_step = take_and_signal
run_to_exit_code(lambda _: pretrain(PretrainSettings.model_validate_json(sys.argv[1])))
"""


def settings_for(plate: PlateReader, out: Path, **changes: Any) -> PretrainSettings:
    content: dict[str, Any] = {
        "plates": (plate.path,),
        "out": out,
        "steps": 20,
        "batch_size": 8,
        "checkpoint_every": 8,
        "device": "cpu",
        "model": TINY,
        "crops": {"crop_px": 32},
        "optimizer": {"base_learning_rate": 0.01},
    }
    return PretrainSettings.checked({**content, **changes})


def start_ranks(
    settings: PretrainSettings, *, size: int = 2, at: int = -1, rank: int = -1, sent: int = 0
) -> list[subprocess.Popen[bytes]]:
    """Start the processes that a launcher would; one of them may send itself a signal after a step."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    arguments = [settings.model_dump_json(), str(at), str(rank), str(sent)]
    shared = {
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "OMP_NUM_THREADS": "1",
    }
    return [
        subprocess.Popen(
            [sys.executable, "-c", RUN, *arguments],
            env={**os.environ, **shared, "RANK": str(number), "LOCAL_RANK": str(number)},
            stderr=subprocess.PIPE,
        )
        for number in range(size)
    ]


def finish(processes: list[subprocess.Popen[bytes]]) -> tuple[list[int], str]:
    """Wait for all; exit codes and what they said."""
    said = "".join(process.communicate(timeout=120)[1].decode() for process in processes)
    return [process.returncode for process in processes], said


def metrics_of(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def weights_sha256(out: Path) -> str:
    return hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()


@pytest.mark.slow
def test_two_ranks_learn_what_one_learns(make_plate: Any, tmp_path: Path) -> None:
    plate = make_plate()
    pretrain(settings_for(plate, tmp_path / "one"))
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--rdzv-backend",
        "c10d",
    ]
    launcher += ["--rdzv-endpoint", "127.0.0.1:0", "-m", "cellvim", "pretrain", str(plate.path)]
    config = tmp_path / "config.yaml"
    config.write_text(settings_for(plate, tmp_path / "two", engine={"accumulate": 2}).to_yaml())
    done = subprocess.run(
        [*launcher, "--out", str(tmp_path / "two"), "--config", str(config), "--json"],
        check=True,
        capture_output=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert json.loads(done.stdout)["steps"] == 20
    one, two = metrics_of(tmp_path / "one"), metrics_of(tmp_path / "two")
    assert [line["step"] for line in two] == list(range(20))
    for wanted, found in zip(one, two, strict=True):
        assert found["loss"] == pytest.approx(wanted["loss"], rel=SAME_LOSS), wanted["step"]
    expected, weights = (load_encoder(tmp_path / name)[0].state_dict() for name in ("one", "two"))
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, rtol=0, atol=SAME_WEIGHTS)
    record = json.loads((tmp_path / "two/run.json").read_text())
    assert record["facts"]["ranks"] == 2


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "sent"), [(1, signal.SIGTERM), (0, signal.SIGKILL)])
def test_two_ranks_stop_together_and_resume_exactly(
    make_plate: Any, tmp_path: Path, rank: int, sent: signal.Signals
) -> None:
    plate = make_plate()
    assert finish(start_ranks(settings_for(plate, tmp_path / "whole")))[0] == [0, 0]
    settings = settings_for(plate, tmp_path / "broken")
    codes, said = finish(start_ranks(settings, at=11, rank=rank, sent=sent))
    if sent == signal.SIGTERM:
        assert codes == [75, 75], said
        assert list_checkpoints(tmp_path / "broken/checkpoints")[-1].stem == "step-00000011"
    else:
        assert codes[0] == -signal.SIGKILL
        assert codes[1] != 0
    assert finish(start_ranks(settings))[0] == [0, 0]
    assert weights_sha256(tmp_path / "broken") == weights_sha256(tmp_path / "whole")
    assert metrics_of(tmp_path / "broken") == metrics_of(tmp_path / "whole")


@pytest.mark.slow
def test_a_failure_of_the_first_rank_ends_all_with_its_exit_code(make_plate: Any, tmp_path: Path) -> None:
    plate = make_plate()
    (tmp_path / "run").mkdir()
    (tmp_path / "run/notes.txt").write_text("mine")
    codes, said = finish(start_ranks(settings_for(plate, tmp_path / "run")))
    assert codes == [4, 4]
    assert "holds files of no pretraining run" in said
    wild = settings_for(plate, tmp_path / "wild", optimizer={"base_learning_rate": 1e30, "warmup_share": 0})
    codes, said = finish(start_ranks(wild))
    assert codes == [3, 3]
    assert "last good checkpoint" in said
