"""Everything about a run of embed that is settled before the first pixel is read."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

import torch

from cellvim.atomic import TEMPORARY_MARK, locked, remove_leftovers
from cellvim.config import EmbedSettings
from cellvim.embed.anndata import anndata_path, is_written, require_anndata
from cellvim.embed.inputs import PlateFacts, find_unknown_stains, list_plates
from cellvim.embed.parts import Part, Recipe
from cellvim.embed.writer import identity_of_table
from cellvim.errors import OutputExistsError, UsageError
from cellvim.model import (
    ChannelEncoder,
    ModelCard,
    choose_device,
    load_encoder,
    name_kernels,
    weights_sha256,
)
from cellvim.profiles import thumbnails_path
from cellvim.provenance import sha256_of_json

NOT_PART_OF_THE_RESULT = {
    *("plates", "model", "out", "overwrite"),
    *("device", "workers", "readers", "anndata"),
}


@dataclass(frozen=True)
class Plan:
    """A run that nothing speaks against.

    Attributes:
        settings: Of the run.
        device: Kind of device.
        encoder: Model in evaluation mode, not yet on the device.
        card: What is known about the model.
        model_sha256: Hash of its weights file.
        kernels: What computes.
        plates: In the order of the table.
        unknown_stains: Stains that the model has no row for.
    """

    settings: EmbedSettings
    device: torch.device
    encoder: ChannelEncoder
    card: ModelCard
    model_sha256: str
    kernels: str
    plates: list[PlateFacts]
    unknown_stains: list[str]

    @property
    def relevant_settings(self) -> dict[str, Any]:
        return self.settings.model_dump(mode="json", exclude=NOT_PART_OF_THE_RESULT)

    @property
    def inputs(self) -> dict[str, str]:
        fingerprints = {plate.file_name: plate.fingerprint for plate in self.plates}
        return {self.settings.model.name: self.model_sha256, **fingerprints}

    @property
    def identity(self) -> str:
        """Hash of all that decides what the table holds."""
        return sha256_of_json({"settings": self.relevant_settings, "inputs": self.inputs})

    @property
    def tile_px(self) -> int:
        return self.settings.tile_px or self.card.crop_px

    @property
    def recipe(self) -> Recipe:
        return Recipe(self.settings, self.tile_px, self.kernels)

    @property
    def folder(self) -> Path:
        """Where finished plates wait for the others."""
        return self.settings.out.parent / f"{self.settings.out.name}.parts"

    @property
    def parts(self) -> list[Part]:
        """One per plate. What it is made from has nothing to do with the other plates, which may come and go."""
        recipe = {"settings": self.relevant_settings, "model": self.model_sha256}
        identities = [sha256_of_json({**recipe, "plate": plate.fingerprint}) for plate in self.plates]
        return [
            Part(plate, self.folder / f"{plate.name}.parquet", identity)
            for plate, identity in zip(self.plates, identities, strict=True)
        ]

    @property
    def is_done(self) -> bool:
        """Whether the very same table is there already.

        Raises:
            OutputExistsError: Something else is there.
        """
        out = self.settings.out
        if not out.exists() or self.settings.overwrite:
            return False
        if identity_of_table(out) == self.identity and thumbnails_path(out).exists():
            return True
        raise OutputExistsError(out, why="was made from other plates, settings or weights")


def plan_run(settings: EmbedSettings) -> Plan:
    """Look at the model, the plates and the output.

    Raises:
        NotFoundError: No such model or plate.
        InputError: Plates that cannot share a table, or that the model cannot be shown.
        OutputExistsError: Something else than a table that may be written is there.
        UsageError: The output is not named as a Parquet table; or a GPU or an extra is asked for and not there.
    """
    _refuse_other_formats(settings.out)
    if settings.anndata:
        require_anndata()
    device = choose_device(settings.device)
    encoder, card = load_encoder(settings.model)
    kernels = name_kernels(device, encoder.settings.state_size)
    plates = list_plates(settings)
    unknown = find_unknown_stains(plates, encoder, card)
    plan = Plan(settings, device, encoder, card, weights_sha256(settings.model), kernels, plates, unknown)
    if settings.anndata:
        is_written(anndata_path(settings.out), plan.identity, overwrite=settings.overwrite)
    return plan


@contextmanager
def opened_parts(plan: Plan) -> Iterator[None]:
    """Hold the folder of finished plates while the block runs, and remove it when all went well.

    Raises:
        LockedError: Another process is writing the same table.
    """
    out = plan.settings.out
    with locked(plan.folder):
        remove_leftovers(plan.folder)
        for name in (out, thumbnails_path(out), anndata_path(out), out.with_suffix(".run.json")):
            for leftover in out.parent.glob(f"{TEMPORARY_MARK}*-{escape(name.name)}"):
                leftover.unlink(missing_ok=True)
        yield
        for part in (*plan.folder.glob("*.parquet"), plan.folder / "threads.json"):
            part.unlink(missing_ok=True)
    with suppress(OSError):  # another process may have begun there since the lock was let go
        plan.folder.rmdir()


def _refuse_other_formats(out: Path) -> None:
    if out.suffix != ".parquet":
        found = f"--out {out} does not end in .parquet, the only format embed writes"
        hint = "pass --anndata for a .h5ad beside it; pandas and polars read it and write any other format"
        raise UsageError(found, hint=hint)
    if out.is_dir():
        raise OutputExistsError(
            out, why="is a folder", hint="--out names the table, such as embeddings.parquet"
        )
