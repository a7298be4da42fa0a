"""The embedding stage: plates and a model in, one Parquet table out."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from cellvim.atomic import locked, read_json, remove_leftovers, write_json
from cellvim.config import EmbedSettings
from cellvim.embed.plate import EmbeddedPlate, embed_plate
from cellvim.embed.writer import (
    books,
    identity_of_table,
    read_part,
    write_part,
    write_table,
    write_thumbnails,
)
from cellvim.errors import InputError, OutputExistsError, SomeFailedError, UsageError
from cellvim.model import (
    ChannelEncoder,
    ModelCard,
    choose_device,
    compute_with,
    explain_out_of_memory,
    load_encoder,
    name_kernels,
    weights_sha256,
)
from cellvim.profiles import thumbnails_path
from cellvim.progress import progress_bar
from cellvim.provenance import Run, sha256_of_json
from cellvim.store import PlateReader, find_plates

logger = logging.getLogger(__name__)

NOT_PART_OF_THE_RESULT = {"plates", "model", "out", "device", "overwrite"}


@dataclass(frozen=True)
class EmbedSummary:
    """Wells in = embedded + failed + skipped, always."""

    out: Path
    rows: int
    features: int
    wells: int
    embedded: int
    failed: dict[str, str]
    """`PLATE WELL` and the reason why it has no row."""
    skipped: dict[str, str]
    """`PLATE WELL` and the reason why ingest had left it out already."""
    left_out: dict[str, str]
    """`PLATE WELL/SITE` and the reason why the field is not part of its well's row."""
    was_done: bool

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "out": str(self.out)}

    def __str__(self) -> str:
        state = "already done" if self.was_done else "done"
        counts = f"{self.wells} wells = {self.embedded} embedded + {len(self.failed)} failed"
        counts += f" + {len(self.skipped)} skipped at ingest" if self.skipped else ""
        lines = [f"{self.out}  {self.rows} rows x {self.features} features  {counts}  {state}"]
        named = {"failed": self.failed, "skipped at ingest": self.skipped, "field left out": self.left_out}
        lines += [f"  {what}: {where}: {why}" for what, lost in named.items() for where, why in lost.items()]
        return "\n".join(lines)


def embed_plates(settings: EmbedSettings) -> EmbedSummary:
    """Embed every well of some plates, one plate at a time.

    A finished plate is kept beside the output until all are done, so that an interrupted run resumes there.

    Raises:
        InputError: Plates of one name, with different channels where features are kept per channel, or with
            stains that the model cannot know.
        OutputExistsError: The output was made from other plates, settings or weights.
    """
    run = Run("embed", settings)
    device = choose_device(settings.device)
    encoder, card = load_encoder(settings.model, device)
    kernels = name_kernels(device, encoder.settings.state_size)
    plates = open_plates(settings)
    unknown_stains = _find_unknown_stains(plates, encoder, card)
    identity = _identity(settings, plates, run)
    if _is_done(settings, identity):
        return _summarise(settings, [read_part(settings.out)], plates, was_done=True)
    parts_folder = settings.out.parent / f"{settings.out.name}.parts"
    with locked(parts_folder), explain_out_of_memory():
        _keep_computing(parts_folder / "threads.json", kernels)
        parts = [
            _embed_or_reuse(plate, encoder, card, settings, parts_folder / f"{plate.name}.parquet", identity)
            for plate in plates
        ]
        summary = _summarise(settings, parts, plates, was_done=False)
        if not summary.rows:
            reason = next(iter({**summary.failed, **summary.skipped}.values()))
            found = f"none of the {summary.wells} wells could be embedded: {reason}"
            raise InputError(found, hint="look at the plate with: cellvim info PLATE")
        write_thumbnails(thumbnails_path(settings.out), parts)
        run.counts = {
            "wells": summary.wells,
            "embedded": summary.embedded,
            **{name: len(lost) for name, lost in books(parts).items()},
        }
        provenance = _provenance(settings, card, plates, run, identity) | {"unknown_stains": unknown_stains}
        run.facts = {
            **books(parts),
            "model": provenance["model"],
            "unknown_stains": unknown_stains,
            "kernels": kernels,
        }
        run.write(settings.out.with_suffix(".run.json"))
        write_table(settings.out, parts, provenance)
        remove_leftovers(parts_folder)
        for part in (*parts_folder.glob("*.parquet"), parts_folder / "threads.json"):
            part.unlink()
    with suppress(OSError):  # another process may have begun there since the lock was let go
        parts_folder.rmdir()
    return summary


def open_plates(settings: EmbedSettings) -> list[PlateReader]:
    """Open the plates, and refuse combinations that cannot share a table."""
    plates = [PlateReader(path) for path in find_plates(settings.plates)]
    names = [plate.name for plate in plates]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        found = f"{len(names)} plates, but two are named {doubled[0]}: their wells could not be told apart"
        raise InputError(found, hint="ingest one of them again under another name with --plate")
    first = plates[0]
    for plate in plates[1:]:
        keeps_channels = settings.pool == "channel" or settings.has_intensity
        if keeps_channels and plate.channels != first.channels:
            found = (
                f"plate {plate.name} has channels {', '.join(plate.channels)}, "
                f"{first.name} has {', '.join(first.channels)}: per-channel features would not line up"
            )
            hint = "pass --pool all without --intensity, or embed them into separate tables"
            raise InputError(found, hint=hint)
    return plates


def require_complete(summary: EmbedSummary) -> None:
    """Turn failed wells and unreadable fields into exit code 1, after everything else is on disk.

    Raises:
        SomeFailedError: Some wells failed, or some fields are not part of their wells.
    """
    lost = {**summary.failed, **summary.left_out}
    if lost:
        where, why = next(iter(lost.items()))
        found = f"{len(summary.failed)} wells and {len(summary.left_out)} fields failed, first {where}: {why}"
        raise SomeFailedError(found, hint=f"the other {summary.embedded} are in {summary.out}")


def _find_unknown_stains(
    plates: Sequence[PlateReader], encoder: ChannelEncoder, card: ModelCard
) -> list[str]:
    """Stains of the plates that the model has no row for; a warning names them.

    Raises:
        InputError: The model cannot be shown such stains.
    """
    for plate in plates:
        encoder.arrange(plate.channels)
    unknown = list(dict.fromkeys(name for plate in plates for name in encoder.unmatched(plate.channels)))
    if unknown:
        knows = f"the model knows {', '.join(card.channels)}"
        if not card.is_unknown_trained:
            found = f"{knows}, and never learned what any other stain is like: {', '.join(unknown)}"
            raise InputError(found, hint="if only the names differ, ingest again with --channels")
        logger.warning("%s; all others go by one name, `unknown`: %s", knows, ", ".join(unknown))
    return unknown


def _identity(settings: EmbedSettings, plates: Sequence[PlateReader], run: Run) -> str:
    run.record_input(settings.model.name, weights_sha256(settings.model))
    for plate in plates:
        run.record_input(plate.place.name, plate.fingerprint)
    relevant = settings.model_dump(mode="json", exclude=NOT_PART_OF_THE_RESULT)
    return sha256_of_json({"settings": relevant, "inputs": run.inputs})


def _is_done(settings: EmbedSettings, identity: str) -> bool:
    """Whether the very same table is there already.

    Raises:
        UsageError: The output is not named as a Parquet table.
        OutputExistsError: Something else is there.
    """
    out = settings.out
    if out.suffix != ".parquet":
        found = f"--out {out} does not end in .parquet, the only format embed writes"
        raise UsageError(found, hint="read it with pandas or polars, and write any other format from there")
    if out.is_dir():
        raise OutputExistsError(
            out, why="is a folder", hint="--out names the table, such as embeddings.parquet"
        )
    if not out.exists() or settings.overwrite:
        return False
    if identity_of_table(out) == identity and thumbnails_path(out).exists():
        return True
    raise OutputExistsError(out, why="was made from other plates, settings or weights")


def _keep_computing(record: Path, kernels: str) -> None:
    """Use as many threads as before an interruption, and say if the kernels are others."""
    before = read_json(record) if record.is_file() else {}
    if before.get("kernels", kernels) != kernels:
        was = before["kernels"]
        logger.warning(
            "plates embedded before were computed with %s kernels, now %s: last bits differ", was, kernels
        )
    write_json(record, {"threads": compute_with(before.get("threads")), "kernels": kernels})


def _embed_or_reuse(
    plate: PlateReader,
    encoder: ChannelEncoder,
    card: ModelCard,
    settings: EmbedSettings,
    part: Path,
    identity: str,
) -> EmbeddedPlate:
    if part.exists() and identity_of_table(part) == identity:
        logger.info("plate %s is embedded already", plate.name)
        return read_part(part)
    with progress_bar(f"embed {plate.name}", total=len(plate.fields)) as advance:
        embedded = embed_plate(
            plate, encoder, settings, tile_px=settings.tile_px or card.crop_px, advance=advance
        )
    write_part(part, embedded, identity)
    logger.info(
        "plate %s: %d wells embedded, %d failed", plate.name, embedded.well_count, len(embedded.failed)
    )
    return embedded


def _provenance(
    settings: EmbedSettings, card: ModelCard, plates: Sequence[PlateReader], run: Run, identity: str
) -> dict[str, Any]:
    """What a table says about itself; a reader can tell whether two tables may be mixed."""
    return {
        "identity": identity,
        "model": card.model_dump(mode="json"),
        "model_sha256": run.inputs[settings.model.name],
        "normalization": "clip to the plate's 0.1 and 99.9 percentiles, standardise per field and channel",
        "plates": {plate.name: plate.fingerprint for plate in plates},
        "channels": list(plates[0].channels),
        "level": settings.level,
        "pool": settings.pool,
        "layers": list(settings.layers),
        "tile_px": settings.tile_px or card.crop_px,
        "has_intensity": settings.has_intensity,
    }


def _summarise(
    settings: EmbedSettings, parts: Sequence[EmbeddedPlate], plates: Sequence[PlateReader], *, was_done: bool
) -> EmbedSummary:
    table = pl.concat([part.table for part in parts], how="diagonal_relaxed")
    wells = sum(len({*plate.wells, *plate.skipped}) for plate in plates)
    return EmbedSummary(
        out=settings.out,
        rows=table.height,
        features=sum(not name.startswith("Metadata_") for name in table.columns),
        wells=wells,
        embedded=table.select("Metadata_Plate", "Metadata_Well").n_unique(),
        **books(parts),
        was_done=was_done,
    )
