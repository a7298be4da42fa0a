"""The pretraining stage, from plates to a run folder."""

import json
import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cellvim.atomic import locked, write_text
from cellvim.config import PretrainSettings
from cellvim.dataset import CropSource, TrainingIndex
from cellvim.model import (
    ModelCard,
    choose_device,
    compute_with,
    explain_out_of_memory,
    save_encoder,
    weights_sha256,
)
from cellvim.pretrain.folder import RunFolder
from cellvim.pretrain.loop import Trainer
from cellvim.pretrain.objective import build_draws, build_objective
from cellvim.pretrain.page import write_run_report
from cellvim.pretrain.pictures import draw_loss_curve
from cellvim.provenance import Run, sha256_of_json

logger = logging.getLogger(__name__)

NOT_PART_OF_THE_RESULT = {
    "plates", "out", "device", "log_every", "checkpoint_every", "overwrite", "is_synthetic"
}  # fmt: skip


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

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "out": str(self.out)}

    def __str__(self) -> str:
        loss = "untrained" if self.final_loss is None else f"loss {self.final_loss:.4f}"
        state = "already done" if self.was_done else "done"
        return f"{self.out / 'model.safetensors'}  {self.steps} steps  {loss}  {self.parameters:,} weights  {state}"


def pretrain(settings: PretrainSettings) -> PretrainSummary:
    """Train a masked autoencoder, or go on with a run that was interrupted.

    The same settings, plates and machine give the same bytes, interrupted or not. Time and machine are in
    `run.json`, nowhere else.

    Raises:
        OutputExistsError: The folder holds another run, or files of somebody else.
        NonFiniteLossError: The loss became NaN or infinite; the last checkpoint stays.
        InterruptedRunError: SIGTERM arrived; the run was saved and can be resumed.
    """
    run = Run("pretrain", settings)
    index = TrainingIndex.open(settings.plates, crop_px=settings.crops.crop_px)
    for plate in index.plates:
        run.record_input(plate.path.name, plate.pixels_fingerprint)
    device = choose_device(settings.device)
    folder = RunFolder(settings.out, run_identity(settings, index))
    folder.refuse_if_taken(overwrite=settings.overwrite)
    with locked(folder.checkpoints), explain_out_of_memory():
        if folder.is_finished and not settings.overwrite:
            return _summary_of_finished(folder)
        folder.open(overwrite=settings.overwrite)
        folder.begin(threads=compute_with(folder.threads))
        _write_settings(settings)
        objective = build_objective(settings, index).to(device)
        source = CropSource(
            index,
            settings.crops,
            batch_size=settings.batch_size,
            seed=settings.seed,
            draws=build_draws(settings, index),
        )
        trainer = Trainer(settings, objective, source, identity=folder.identity)
        trainer.run()
        return _write_results(settings, trainer, folder, run)


def run_identity(settings: PretrainSettings, index: TrainingIndex) -> str:
    """Hash of all that decides the weights: settings, and the pixels of the plates."""
    relevant = settings.model_dump(mode="json", exclude=NOT_PART_OF_THE_RESULT)
    return sha256_of_json(
        {"settings": relevant, "plates": sorted(plate.pixels_fingerprint for plate in index.plates)}
    )


def _write_settings(settings: PretrainSettings) -> None:
    """Save what can be run again anywhere: no folder of this machine, and nothing that deletes."""
    plates = tuple(Path(path.name) for path in settings.plates)
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
        mask_ratio=settings.masking.mask_ratio,
        steps=settings.steps,
        seed=settings.seed,
        is_trained=settings.steps > 0,
        plates=tuple(sorted(plate.name for plate in index.plates)) if settings.steps else (),
        objective=settings.objective,
        labels_used=trainer.state.ema.labels_used,
    )
    save_encoder(out, trainer.state.ema.encoder.state_dict(), card)
    losses = read_losses(out / "metrics.jsonl")
    if losses:
        draw_loss_curve(losses, out / "loss.png")
    facts = trainer.state.ema.write_results(trainer.source, settings)
    summary = _summarise(settings, trainer, index, losses)
    run.counts = {"plates": len(index.plates), "fields": index.field_count, "steps": settings.steps}
    run.facts = {
        **facts, "crops_per_second": trainer.crops_per_second, "data_wait_share": trainer.data_wait_share
    }  # fmt: skip
    record = run.write(out / "run.json")
    write_run_report(out, summary.as_dict(), record)
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
    channels = tuple(stored["channels"])
    return PretrainSummary(**{**stored, "out": folder.path, "channels": channels, "was_done": True})


def read_losses(path: Path) -> list[float]:
    """Loss of each step, from `metrics.jsonl`."""
    if not path.exists():
        return []
    return [json.loads(line)["loss"] for line in path.read_text(encoding="utf-8").splitlines()]
