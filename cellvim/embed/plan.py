"""Everything about a run of embed that is settled before the first pixel is read."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from glob import escape
from pathlib import Path
from typing import Any

import torch

from cellvim.atomic import TEMPORARY_MARK, locked, remove_leftovers
from cellvim.config import EmbedSettings
from cellvim.embed.anndata import anndata_path, is_written, require_anndata
from cellvim.embed.blocks import block_path, chosen_blocks
from cellvim.embed.cutting import describe
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
    weights_file,
    weights_sha256,
)
from cellvim.profiles import thumbnails_path
from cellvim.provenance import Artifact, sha256_of_json

NOT_PART_OF_THE_RESULT = {
    *("plates", "model", "masks"),  # their content is
    *("out", "overwrite", "anndata"),
    *("device", "workers", "readers"),
}


@dataclass(frozen=True)
class Output:
    """A table to write.

    Attributes:
        path: Where.
        identity: Hash of all that decides what it holds.
        block: Block of the encoder that it is of; None if all that the settings name are in one table.
    """

    path: Path
    identity: str
    block: int | None = None

    @property
    def is_there(self) -> bool:
        """Whether this very table is there already.

        Raises:
            OutputExistsError: Something else is there.
        """
        if not self.path.exists():
            return False
        if identity_of_table(self.path) == self.identity:
            return thumbnails_path(self.path).exists()
        raise OutputExistsError(self.path, why="was made from other plates, settings or weights")


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
        cutting: How fields become tiles or crops around objects, with the hash of their label images.
    """

    settings: EmbedSettings
    device: torch.device
    encoder: ChannelEncoder
    card: ModelCard
    model_sha256: str
    kernels: str
    plates: list[PlateFacts]
    unknown_stains: list[str]
    cutting: dict[str, Any]

    @property
    def relevant_settings(self) -> dict[str, Any]:
        return self.settings.model_dump(mode="json", exclude=NOT_PART_OF_THE_RESULT)

    @property
    def inputs(self) -> dict[str, str]:
        """For run.json: hashes by file name, or by plate where two files share one."""
        files = [plate.file_name for plate in self.plates]
        fingerprints = {
            plate.file_name if files.count(plate.file_name) == 1 else plate.name: plate.fingerprint
            for plate in self.plates
        }
        return {self.settings.model.name: self.model_sha256, **fingerprints}

    @property
    def reads(self) -> list[Artifact]:
        """The same with paths, and the label images."""
        weights = weights_file(self.settings.model)
        found = [Artifact(name=self.settings.model.name, path=str(weights), sha256=self.model_sha256)]
        found += [
            Artifact(name=plate.file_name, kind="plate", path=str(plate.address), sha256=plate.fingerprint)
            for plate in self.plates
        ]
        if self.settings.masks is not None:
            found.append(
                Artifact(
                    name=self.settings.masks.name,
                    kind="label images",
                    path=str(self.settings.masks),
                    sha256=str(self.cutting["masks_sha256"]),
                    of=tuple(plate.name for plate in self.plates),
                )
            )
        return found

    @property
    def identity(self) -> str:
        """Hash of all that decides what the tables hold."""
        # By the names of plates, which are all different, where file names need not be.
        fingerprints = {plate.name: plate.fingerprint for plate in self.plates}
        content = {"settings": self.relevant_settings, "cutting": self.cutting, "plates": fingerprints}
        return sha256_of_json({**content, "model": self.model_sha256})

    @cached_property
    def outputs(self) -> list[Output]:
        out, identity = self.settings.out, self.identity
        return [
            Output(block_path(out, block), sha256_of_json({"run": identity, "block": block}), block)
            for block in chosen_blocks(self.settings, len(self.encoder.blocks))
        ] or [Output(out, identity)]

    @property
    def tile_px(self) -> int:
        return self.settings.tile_px or self.card.crop_px

    @property
    def recipe(self) -> Recipe:
        return Recipe(self.settings, self.tile_px, self.kernels)

    @property
    def record(self) -> Path:
        return self.settings.out.with_suffix(".run.json")

    @property
    def files(self) -> list[Path]:
        """Every table, and what lies beside it."""
        return list(_files(self))

    @property
    def folder(self) -> Path:
        """Where finished plates wait for the others."""
        return self.settings.out.parent / f"{self.settings.out.name}.parts"

    @cached_property
    def parts(self) -> list[Part]:
        """One per plate. What it is made from has nothing to do with the other plates, which may come and go."""
        recipe = {"settings": self.relevant_settings, "model": self.model_sha256}
        return [
            Part(
                plate,
                self.folder / f"{plate.name}.parquet",
                sha256_of_json(
                    {**recipe, "plate": plate.fingerprint, "cutting": describe(self.settings, (plate.name,))}
                ),
            )
            for plate in self.plates
        ]

    @property
    def is_done(self) -> bool:
        """Whether the very same tables are there already.

        Raises:
            OutputExistsError: Something else is there.
        """
        if self.settings.overwrite:
            return False
        # Every one is looked at, whatever the first one says.
        are_there = [output.is_there for output in self.outputs]
        return all(are_there)


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
    encoder.require_blocks(settings.layers)
    _refuse_small_tiles(settings, encoder.settings.patch_px)
    cutting = describe(settings, [plate.name for plate in plates])
    sha256 = weights_sha256(settings.model)
    plan = Plan(settings, device, encoder, card, sha256, kernels, plates, unknown, cutting)
    if settings.anndata:
        for output in plan.outputs:
            is_written(anndata_path(output.path), output.identity, overwrite=settings.overwrite)
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
        for file in [*_files(plan), plan.record]:
            for leftover in out.parent.glob(f"{TEMPORARY_MARK}*-{escape(file.name)}"):
                leftover.unlink(missing_ok=True)
        yield
        for part in (*plan.folder.glob("*.parquet"), plan.folder / "threads.json"):
            part.unlink(missing_ok=True)
    with suppress(OSError):  # another process may have begun there since the lock was let go
        plan.folder.rmdir()


def _files(plan: Plan) -> Iterator[Path]:
    for output in plan.outputs:
        yield from (output.path, thumbnails_path(output.path), anndata_path(output.path))


def _refuse_small_tiles(settings: EmbedSettings, patch_px: int) -> None:
    if settings.tile_px is not None and settings.tile_px < patch_px:
        found = f"--tile-px {settings.tile_px} is less than a patch of the model, {patch_px} px"
        raise UsageError(found, hint=f"pass {patch_px} or more, or leave it away for the training crop")


def _refuse_other_formats(out: Path) -> None:
    if out.suffix != ".parquet":
        found = f"--out {out} does not end in .parquet, the only format embed writes"
        hint = "pass --anndata for a .h5ad beside it; pandas and polars read it and write any other format"
        raise UsageError(found, hint=hint)
    if out.is_dir():
        raise OutputExistsError(
            out, why="is a folder", hint="--out names the table, such as embeddings.parquet"
        )
