"""Where an import goes and what it says about itself: nothing of anybody else is replaced, nothing is left open."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from cellvim.atomic import locked
from cellvim.config import ImportSettings
from cellvim.errors import ExitCode, InputError, LockedError, OutputExistsError, UsageError
from cellvim.model.importing import import_checkpoint
from tests.model.published_states import CHANNEL, IMAGE, MASKED, random_state
from tests.model.test_importing import STAINS, UNPOOLED, imported, lightning

WITHOUT_POSITIONS = {**CHANNEL, "if_abs_pos_embed": False}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return lightning(tmp_path / "file.ckpt", random_state(IMAGE), state_dict_ema=random_state(IMAGE, seed=1))


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("first", "second"), [(True, False), (False, True)])
def test_averaged_and_trained_weights_are_two_models(first: bool, second: bool, file: Path) -> None:
    out = file.parent / "file_model"
    _, card, summary = imported(file, use_ema=first)
    named = {True: "averaged weights", False: "weights as trained"}
    for text in (card.origin or "", summary.model, (out / "README.md").read_text()):
        assert named[first] in text
        assert named[second] not in text
    before = content(out)
    with pytest.raises(OutputExistsError, match="holds another model"):
        imported(file, use_ema=second)
    assert content(out) == before
    _, card, _ = imported(file, use_ema=second, overwrite=True)
    assert named[second] in (card.origin or "")


def test_a_file_without_averaged_weights_says_so(tmp_path: Path) -> None:
    _, card, _ = imported(lightning(tmp_path / "file.ckpt", random_state(IMAGE)))
    assert "weights as trained" in (card.origin or "")


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("state", ["live", "ended", "without its checkpoints"])
def test_a_training_run_is_never_replaced(state: str, overwrite: bool, file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    if state == "without its checkpoints":
        (run / "checkpoints").rmdir()
    if state != "live":
        for name in ("model.safetensors", "summary.json", "report.html", "loss.png", "metrics.jsonl"):
            (run / name).write_text(name)
    before = content(run)
    held = locked(run / "checkpoints") if state == "live" else nullcontext()
    with held, pytest.raises(OutputExistsError, match="is a training run") as caught:
        import_checkpoint(ImportSettings(file=file, out=run, overwrite=overwrite))
    assert "--overwrite" not in caught.value.hint
    assert content(run) == before


def test_a_folder_of_something_else_is_not_written_to(file: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "README.md").write_text("mine")
    with pytest.raises(OutputExistsError, match="is not empty"):
        import_checkpoint(ImportSettings(file=file, out=tmp_path / "notes"))
    assert (tmp_path / "notes" / "README.md").read_text() == "mine"
    assert len(list((tmp_path / "notes").iterdir())) == 1
    with pytest.raises(OutputExistsError, match="is a file"):
        import_checkpoint(ImportSettings(file=file, out=file))


def test_an_empty_folder_and_a_killed_import_are_taken_over(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "file_model"
    out.mkdir()
    (out / ".tmp-1-model.safetensors").write_bytes(b"half")
    imported(file)
    assert {path.name for path in out.iterdir()} == {
        "model.safetensors", "README.md", "settings.yaml", "run.json",
    }  # fmt: skip
    (out / "run.json").unlink()
    imported(file)
    assert (out / "run.json").exists()


def test_two_imports_do_not_write_at_once(file: Path, tmp_path: Path) -> None:
    with locked(tmp_path / "file_model"), pytest.raises(LockedError):
        imported(file)
    imported(file)


@pytest.mark.parametrize(
    "prefix",
    ["", "backbone.", "module.", "model.", "module.backbone.", "_orig_mod.", "net.", "backbone.module."],
)
def test_the_model_is_found_behind_any_one_prefix(prefix: str, tmp_path: Path) -> None:
    state = random_state(IMAGE)
    more = {} if not prefix else {"criterion.weight": torch.ones(2)}
    torch.save(
        {"state_dict": {f"{prefix}{name}": value for name, value in state.items()} | more}, tmp_path / "f"
    )
    encoder, _, summary = imported(tmp_path / "f")
    assert torch.equal(encoder.norm.weight, state["norm_f.weight"].float())
    assert summary.prefix == prefix
    assert (f"prefix: {prefix}" in str(summary)) == bool(prefix)
    assert ("criterion.weight" in summary.left_out) == bool(prefix)


def test_two_models_in_one_file_are_asked_about(tmp_path: Path) -> None:
    state = random_state(IMAGE)
    both = {f"{who}.{name}": value for name, value in state.items() for who in ("student", "teacher")}
    torch.save({"state_dict": both}, tmp_path / "file.ckpt")
    with pytest.raises(InputError, match=r"2 models, by the prefixes of their names: student\., teacher\."):
        imported(tmp_path / "file.ckpt")


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_weights_are_found_beside_the_optimizer(key: str, tmp_path: Path) -> None:
    torch.save({key: random_state(IMAGE), "optimizer": {"state": {}}, "epoch": 3}, tmp_path / "file.ckpt")
    encoder, _, _ = imported(tmp_path / "file.ckpt")
    assert torch.equal(encoder.norm.weight, random_state(IMAGE)["norm_f.weight"].float())
    torch.save({key: {}, "optimizer": {}}, tmp_path / "empty.ckpt")
    with pytest.raises(InputError, match=f"no weights under {key}"):
        imported(tmp_path / "empty.ckpt")


@pytest.mark.parametrize(
    ("config", "flags", "message"),
    [
        (UNPOOLED, {"pool": "max"}, "pools nothing, --pool"),
        (CHANNEL, {"mask_ratio": 0.5}, "hides nothing, --mask-ratio"),
        (IMAGE, {"mask_ratio": 0.5}, "hides nothing, --mask-ratio"),
        (IMAGE, {"scan_order": "spatial-first"}, "one token per patch, .*--scan-order"),
        (MASKED, {"scan_order": "channel-first"}, "one token per patch, .*--scan-order"),
        (WITHOUT_POSITIONS, {"image_px": (32, 32)}, "no table of positions, --image-px"),
    ],
)
def test_a_flag_that_can_have_no_effect_is_refused(
    config: dict[str, Any], flags: dict[str, Any], message: str, tmp_path: Path
) -> None:
    file = lightning(tmp_path / "file.ckpt", random_state(config))
    names = STAINS if config["model"] == "FastChannelVim" else ()
    with pytest.raises(UsageError, match=message) as caught:
        imported(file, channels=names, **flags)
    assert caught.value.hint.startswith("drop --")
    assert not (tmp_path / "file_model").exists()


def test_a_flag_that_says_what_is_so_anyway_is_not_told_as_a_decision(tmp_path: Path) -> None:
    file = lightning(tmp_path / "file.ckpt", random_state(MASKED))
    _, _, summary = imported(file, pool="mean", mask_ratio=0.5)
    assert summary.given == {"mask_ratio": 0.5}


def test_a_model_trained_further_under_labels_keeps_its_words(tmp_path: Path) -> None:
    hyper = {"mask_ratio": 0.0, "rotate_every_block": "False"}
    _, card, summary = imported(lightning(tmp_path / "file.ckpt", random_state(IMAGE), hyper))
    assert (card.mask_ratio, card.model.is_rotated) == (0, False)
    assert summary.found == {"rotate_every_block": "False"}


def test_no_order_to_the_terminal_is_passed_on(
    tmp_path: Path, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "\x1b[2J\r\n\u202eimported: all is well"
    file = lightning(tmp_path / "file.ckpt", random_state(IMAGE), {evil: {"scanpath_type": evil}})
    saved = torch.load(file, weights_only=True)
    torch.save({**saved, "state_dict": {evil: torch.ones(1), **saved["state_dict"]}}, file)
    assert run("import-checkpoint", file, "--out", tmp_path / "out") == ExitCode.BAD_INPUT
    assert r"scanpath_type: '\x1b[2J\r\n\u202eimported" in capsys.readouterr().err
    del saved["hyper_parameters"]
    torch.save({**saved, "state_dict": {evil: torch.ones(1), **saved["state_dict"]}}, file)
    assert run("import-checkpoint", file, "--out", tmp_path / "out") == ExitCode.DONE
    told = capsys.readouterr().out
    assert r"such as \x1b[2J\r\n\u202eimported" in told
    assert told.replace("\n", "").isprintable()
    left_out = json.loads((tmp_path / "out" / "run.json").read_text())["facts"]["left_out"]
    assert all(name.isprintable() for name in left_out)
