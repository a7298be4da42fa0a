"""Two ranks take the steps that one takes, end together, and leave one run folder."""

import hashlib
import json
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from cellvim.config import PretrainSettings
from cellvim.model import load_encoder
from cellvim.pretrain import loop, pretrain
from cellvim.pretrain.distributed import _retold
from cellvim.pretrain.state import list_checkpoints
from cellvim.store import FieldKey, PlateReader, PlateWriter
from cellvim.terminal import run_to_exit_code

TINY = {"width": 16, "depth": 2, "patch_px": 8, "decoder_width": 16, "decoder_depth": 1, "position_grid": 4}
SAME_LOSS = 1e-5
"""Largest relative difference of a step's loss between one rank and two: gradients are sums in another order."""
SAME_WEIGHTS = 5e-6
"""Largest 2-norm of what two ranks change in a tensor after 20 steps, as a share of the tensor's own: seen were 3.6e-7
in a bias that starts at zero, and less in all others. AdamW divides a gradient by its size, so rounding of a gradient
near zero can weigh more on another machine."""
HANG_SECONDS = 240
"""Ranks that are not gone by then wait for each other for ever."""

# Ranks are forked from one process that has imported all, which saves each of them seconds.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["cellvim.pretrain", "torch._dynamo"])


@dataclass(frozen=True)
class Event:
    """What befalls one rank once it has taken so many steps."""

    step: int
    rank: int
    kind: Literal["SIGTERM", "SIGKILL", "full disk"]

    def happen(self) -> None:
        if self.kind == "full disk":
            # Room for metrics.jsonl, not for a checkpoint.
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
        else:
            os.kill(os.getpid(), getattr(signal, self.kind))


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


def run_ranks(settings: PretrainSettings, event: Event | None = None) -> tuple[list[int | None], list[str]]:
    """Run the two processes that a launcher would start; exit codes and what each said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    said = [settings.out.with_name(f"said-{port}-{rank}") for rank in range(2)]
    ranks = [
        FORKS.Process(target=be_rank, args=(rank, port, settings.model_dump_json(), event, said[rank]))
        for rank in range(2)
    ]
    is_hanging: list[bool] = []
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(HANG_SECONDS)
        is_hanging.append(process.is_alive())
        process.kill()
        process.join()
    codes = [process.exitcode for process in ranks]
    assert not any(is_hanging), codes
    for process in ranks:
        process.close()
    return codes, [path.read_text() for path in said]


def be_rank(rank: int, port: int, settings: str, event: Event | None, said: Path) -> None:
    launched = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in launched.items()}, MASTER_ADDR="127.0.0.1")
    with said.open("wb") as file:
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    take = loop.Trainer._take_step

    def take_until_event(self: loop.Trainer, batches: Any, metrics: Any) -> None:
        take(self, batches, metrics)
        metrics.flush()
        if event and (self.state.step, rank) == (event.step, event.rank):
            event.happen()

    loop.Trainer._take_step = take_until_event
    run_to_exit_code(lambda _: pretrain(PretrainSettings.model_validate_json(settings)))


def metrics_of(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def weights_sha256(out: Path) -> str:
    return hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> PlateReader:
    """A plate of waves, another length and phase in each field and channel."""
    writer = PlateWriter(tmp_path_factory.mktemp("plates"), "P1", ("DNA", "ER", "Mito"), np.dtype(np.uint16))
    writer.begin()
    fields = [FieldKey(well, site) for well in ("A01", "A02", "B01", "B02") for site in (1, 2)]
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:48, :48]
    for number, key in enumerate(fields):
        along_y, along_x, phase = generator.uniform(0.1, 0.6, (3, 3, 1, 1))
        waves = (
            1000 + 800 * np.sin(along_y * y + along_x * x + 10 * phase) + generator.normal(0, 50, (3, 48, 48))
        )
        writer.write_field(key, waves.astype(np.uint16), token=str(number), is_valid=[True] * 3)
    writer.finish(fields, platemap=None)
    return PlateReader(writer.path)


@pytest.fixture(scope="module")
def whole(plate: PlateReader, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two ranks in two parts each, started as a user would and disturbed by nobody."""
    out = tmp_path_factory.mktemp("whole") / "run"
    config = out.with_name("config.yaml")
    config.write_text(settings_for(plate, out, engine={"accumulate": 2}).to_yaml())
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    launcher += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]
    done = subprocess.run(
        [
            *launcher,
            "-m",
            "cellvim",
            "pretrain",
            str(plate.path),
            "--out",
            str(out),
            "--config",
            str(config),
            "--json",
        ],
        check=True,
        capture_output=True,
        timeout=HANG_SECONDS,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert json.loads(done.stdout)["steps"] == 20
    return out


@pytest.mark.slow
def test_two_ranks_learn_what_one_learns(plate: PlateReader, whole: Path, tmp_path: Path) -> None:
    pretrain(settings_for(plate, tmp_path / "one"))
    one, two = metrics_of(tmp_path / "one"), metrics_of(whole)
    assert [line["step"] for line in two] == list(range(20))
    for wanted, found in zip(one, two, strict=True):
        assert found["loss"] == pytest.approx(wanted["loss"], rel=SAME_LOSS), wanted["step"]
    expected, weights = (load_encoder(out)[0].state_dict() for out in (tmp_path / "one", whole))
    for name, value in expected.items():
        assert float((weights[name] - value).norm()) <= SAME_WEIGHTS * float(value.norm()), name
    record = json.loads((whole / "run.json").read_text())
    assert record["facts"]["ranks"] == 2


@pytest.mark.slow
def test_which_pairs_are_told_apart_does_not_depend_on_the_ranks(plate: PlateReader, tmp_path: Path) -> None:
    aligned = {"objective": "align", "alignment": {"weight": 1.0, "positives": "well"}}
    one, two = (
        settings_for(plate, tmp_path / name, **aligned, batch_size=16, steps=5, engine={"accumulate": 2})
        for name in ("one", "two")
    )
    pretrain(one)
    codes, said = run_ranks(two)
    assert codes == [0, 0], said
    for wanted, found in zip(metrics_of(one.out), metrics_of(two.out), strict=True):
        for name in ("loss", "alignment_loss"):
            assert found[name] == pytest.approx(wanted[name], rel=SAME_LOSS), wanted["step"]


@pytest.mark.slow
@pytest.mark.parametrize("event", [Event(11, 1, "SIGTERM"), Event(11, 0, "SIGKILL")], ids=lambda e: e.kind)
def test_two_ranks_stop_together_and_resume_exactly(
    plate: PlateReader, whole: Path, tmp_path: Path, event: Event
) -> None:
    settings = settings_for(plate, tmp_path / "broken", engine={"accumulate": 2})
    codes, said = run_ranks(settings, event)
    if event.kind == "SIGTERM":
        assert codes == [75, 75], said
        assert list_checkpoints(settings.out / "checkpoints")[-1].stem == "step-00000011"
    else:
        assert codes == [-signal.SIGKILL, 75], said
        assert "error: another rank stopped" in said[1]
        assert list_checkpoints(settings.out / "checkpoints")[-1].stem == "step-00000008"
    codes, said = run_ranks(settings)
    assert codes == [0, 0], said
    assert weights_sha256(settings.out) == weights_sha256(whole)
    assert metrics_of(settings.out) == metrics_of(whole)


def test_memory_that_ran_out_on_the_first_rank_is_no_bug_on_the_others() -> None:
    retold = _retold(MemoryError())
    assert (retold["found"], retold["exit_code"]) == ("out of memory", 6)


@pytest.mark.slow
def test_a_failure_of_the_first_rank_ends_all_with_its_exit_code(plate: PlateReader, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    codes, said = run_ranks(settings_for(plate, tmp_path / "mine"))
    assert codes == [4, 4], said
    assert "error: the first rank stopped" in said[1]
    assert "holds files of no pretraining run" in said[1]
    wild = settings_for(plate, tmp_path / "wild", optimizer={"base_learning_rate": 1e30, "warmup_share": 0})
    codes, said = run_ranks(wild)
    assert codes == [3, 3], said
    assert "from all samples of the 8 in the batch" in said[0]
    (tmp_path / "file").write_text("no folder")
    codes, said = run_ranks(settings_for(plate, tmp_path / "file"))
    assert codes == [5, 5], said
    assert "error: Not a directory" in said[0]
    assert "error: the first rank stopped: Not a directory" in said[1]


@pytest.mark.slow
def test_a_disk_that_fills_up_ends_all_ranks_and_leaves_the_last_checkpoint(
    plate: PlateReader, tmp_path: Path
) -> None:
    settings = settings_for(plate, tmp_path / "run", steps=4, checkpoint_every=1)
    codes, said = run_ranks(settings, Event(3, 0, "full disk"))
    assert codes == [5, 5], said
    assert "step-00000003.safetensors cannot be written" in said[0]
    assert "the first rank stopped" in said[1]
    names = sorted(path.name for path in (settings.out / "checkpoints").iterdir())
    assert [name for name in names if "step" in name] == [
        "step-00000001.safetensors",
        "step-00000002.safetensors",
    ]
