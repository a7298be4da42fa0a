"""The pretraining stage, from plates to a run folder."""

import json
import logging
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from cellvim.atomic import locked, write_text
from cellvim.config import PretrainSettings
from cellvim.dataset import CropSource, TrainingIndex
from cellvim.model import ModelCard, compute_with, explain_out_of_memory, save_encoder, weights_sha256
from cellvim.pretrain.build import build_draws, build_objective
from cellvim.pretrain.distributed import Ranks, joined_ranks
from cellvim.pretrain.folder import COMPARED_FILES, RunFolder
from cellvim.pretrain.holdout import holdout_lines
from cellvim.pretrain.loop import Trainer
from cellvim.pretrain.objective import Objective
from cellvim.pretrain.page import write_run_report
from cellvim.pretrain.pictures import draw_loss_curve
from cellvim.pretrain.tensorboard import require_tensorboard
from cellvim.provenance import Run, files_written, note_attempt, sha256_of_json
from cellvim.store import PlateReader

logger = logging.getLogger(__name__)

NOT_PART_OF_THE_RESULT: dict[str, Any] = {
    **dict.fromkeys(("plates", "out", "device", "log_every", "checkpoint_every"), True),
    **dict.fromkeys(("overwrite", "is_synthetic"), True),
    "engine": {"workers", "is_logged_to_tensorboard"},
}


@dataclass(frozen=True)
class PretrainSummary:
    """What a run came to."""

    out: Path
    steps: int
    channels: tuple[str, ...]
    parameters: int
    final_loss: float | None
    """Mean loss of the last tenth of the steps; None for an untrained encoder."""
    crops_per_second: float | None
    weights_sha256: str
    was_done: bool
    holdout: dict[str, Any] | None = None
    """Scores on what a classifier has not seen; None where no label was learned."""

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "out": str(self.out)}

    def __str__(self) -> str:
        loss = "untrained" if self.final_loss is None else f"loss {self.final_loss:.4f}"
        state = "already done" if self.was_done else "done"
        line = f"{self.out / 'model.safetensors'}  {self.steps} steps  {loss}  {self.parameters:,} weights  {state}"
        return "\n".join([line, *holdout_lines(self.holdout)])


def pretrain(settings: PretrainSettings, *, config: Path | None = None) -> PretrainSummary:
    """Train an encoder, or go on with a run that was interrupted.

    The same settings, plates and machine give the same bytes, interrupted or not. Time and machine are in
    `run.json`, nowhere else. Under a launcher such as `torchrun` every process calls this, the first one alone
    writes, and all get the same summary.

    Args:
        settings: All of them.
        config: The file that they come from, if they do, for the record.

    Raises:
        OutputExistsError: The folder holds another run, or files of somebody else.
        NonFiniteLossError: The loss became NaN or infinite; the last checkpoint stays.
        InterruptedRunError: SIGTERM arrived; the run was saved and can be resumed.
        FirstRankError: The first rank failed; that one raises what happened.
        LostRankError: Another rank is gone, and said why itself if it could.
        UsageError: A step cannot be dealt out evenly, or something is missing that the settings ask for.
    """
    run = Run("pretrain", settings)
    if config is not None:
        # What is in it is in the settings, which decide; this only leads to the file.
        run.reads += files_written([config])
    if settings.engine.is_logged_to_tensorboard:
        require_tensorboard()
    with joined_ranks(settings.device) as (ranks, device), explain_out_of_memory(), ExitStack() as held:
        index = TrainingIndex.open(settings.plates, crop_px=settings.crops.crop_px)
        trainer = _make_trainer(settings, index, device, ranks)
        for plate in index.plates:
            kind = "plate" if trainer.state.ema.labels_used else "pixels"
            digest = fingerprint_of(plate, trainer.state.ema)
            run.record_input(plate.place.name, digest, plate.place.location, kind)
        folder = RunFolder(settings.out, trainer.identity)
        begun = ranks.lead(lambda: _begin(run, folder, trainer, held))
        if begun["is_finished"]:
            return _summary_of_finished(folder)
        compute_with(begun["threads"])
        trainer.run()
        written = ranks.lead(lambda: _write_results(settings, trainer, folder, run).as_dict())
        return _summary_from(written, settings.out)


def run_identity(settings: PretrainSettings, index: TrainingIndex, objective: Objective) -> str:
    """Hash of all that decides the weights: settings, the pixels of the plates, and labels where they are used."""
    relevant = settings.model_dump(mode="json", exclude=NOT_PART_OF_THE_RESULT)
    plates = sorted(fingerprint_of(plate, objective) for plate in index.plates)
    return sha256_of_json({"settings": relevant, "plates": plates})


def fingerprint_of(plate: PlateReader, objective: Objective) -> str:
    """Hash of what an objective learns from: the pixels, and the plate map where labels take part."""
    return plate.fingerprint if objective.labels_used else plate.pixels_fingerprint


def _make_trainer(
    settings: PretrainSettings, index: TrainingIndex, device: torch.device, ranks: Ranks
) -> Trainer:
    draws = build_draws(settings, index)
    source = CropSource(
        index, settings.crops, batch_size=settings.batch_size, seed=settings.seed, draws=draws
    )
    objective = build_objective(settings, index).to(device)
    identity = run_identity(settings, index, objective)
    return Trainer(settings, objective, source, identity=identity, ranks=ranks)


def _begin(run: Run, folder: RunFolder, trainer: Trainer, held: ExitStack) -> dict[str, Any]:
    """Take the run folder, which stays locked as long as `held` is open."""
    settings = trainer.settings
    folder.refuse_if_taken(overwrite=settings.overwrite)
    held.enter_context(locked(folder.checkpoints))
    if folder.is_finished and not settings.overwrite:
        return {"is_finished": True}
    folder.open(overwrite=settings.overwrite)
    threads = compute_with(folder.threads)
    folder.begin({"threads": threads, **trainer.computes_with})
    note_attempt(run, folder.checkpoints)
    _write_settings(settings)
    return {"is_finished": False, "threads": threads}


def _write_settings(settings: PretrainSettings) -> None:
    """Save what can be run again anywhere: no folder of this machine, and nothing that deletes."""
    plates = tuple(path if isinstance(path, str) else Path(path.name) for path in settings.plates)
    portable = settings.model_copy(update={"plates": plates, "out": Path(), "overwrite": False})
    write_text(settings.out / "settings.yaml", portable.to_yaml())


def _write_results(
    settings: PretrainSettings, trainer: Trainer, folder: RunFolder, run: Run
) -> PretrainSummary:
    out, index, started = settings.out, trainer.source.index, time.perf_counter()
    card = ModelCard(
        model=settings.model,
        channels=index.channels,
        crop_px=settings.crops.crop_px,
        mask_ratio=0.0 if settings.objective == "supervised" else settings.masking.mask_ratio,
        steps=settings.steps,
        seed=settings.seed,
        is_trained=settings.steps > 0,
        is_unknown_trained=settings.steps > 0 and settings.masking.name_dropout > 0,
        plates=tuple(sorted(plate.name for plate in trainer.source.draws.plates)) if settings.steps else (),
        objective=settings.objective,
        labels_used=trainer.state.ema.labels_used if settings.steps else None,
    )
    save_encoder(out, trainer.state.ema.encoder.state_dict(), card)
    losses = read_losses(out / "metrics.jsonl")
    if losses:
        objective = trainer.state.ema
        draw_loss_curve(
            losses, out / "loss.png", name=objective.loss_name, reference=objective.reference_loss
        )
    facts = trainer.state.ema.write_results(trainer.source, settings)
    summary = replace(_summarise(settings, trainer, index, losses), holdout=facts.get("holdout"))
    run.counts = {"plates": len(index.plates), "fields": index.field_count, "steps": settings.steps}
    run.facts = {**trainer.facts, **facts}
    run.outputs = files_written(out / name for name in COMPARED_FILES)
    record = run.write(out / "run.json")
    write_run_report(out, summary.as_dict(), record, title=trainer.state.ema.title)
    folder.write_summary({**summary.as_dict(), "out": "", "crops_per_second": None})
    logger.info("wrote %s in %.1f s", out, time.perf_counter() - started)
    return summary


def _summarise(
    settings: PretrainSettings, trainer: Trainer, index: TrainingIndex, losses: list[float]
) -> PretrainSummary:
    tail = losses[-max(1, len(losses) // 10) :]
    return PretrainSummary(
        out=settings.out,
        steps=settings.steps,
        channels=index.channels,
        parameters=sum(p.numel() for p in trainer.state.ema.encoder.parameters()),
        final_loss=sum(tail) / len(tail) if tail else None,
        crops_per_second=trainer.crops_per_second,
        weights_sha256=weights_sha256(settings.out / "model.safetensors"),
        was_done=False,
    )


def _summary_of_finished(folder: RunFolder) -> PretrainSummary:
    stored = {key: value for key, value in folder.read_summary().items() if key != "identity"}
    return _summary_from({**stored, "was_done": True}, folder.path)


def _summary_from(stored: dict[str, Any], out: Path) -> PretrainSummary:
    return PretrainSummary(**{**stored, "out": out, "channels": tuple(stored["channels"])})


def read_losses(path: Path) -> list[float]:
    """Loss of each step, from `metrics.jsonl`."""
    if not path.exists():
        return []
    return [json.loads(line)["loss"] for line in path.read_text(encoding="utf-8").splitlines()]
