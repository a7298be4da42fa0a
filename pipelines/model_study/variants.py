"""What the model study varies: one factor at a time from the default, and the readings of each trained run."""

from dataclasses import dataclass, field
from typing import Any, Literal

DataName = Literal["synthetic", "bbbc013"]

DEFAULT, UNTRAINED, INTENSITY = "default", "untrained", "intensity statistics"
BLOCKS = 6
"""Of the preset that the study trains."""
BOTH: tuple[DataName, ...] = ("synthetic", "bbbc013")


@dataclass(frozen=True)
class Reading:
    """One way to get features out of a run.

    Args:
        name: Row of the tables.
        pool: Whether tokens are averaged per channel, or over everything.
        block: Block whose output is taken, from 0; the final norm if None.
        dense_pool_scale: Replaces the setting that the run was trained with.
    """

    name: str
    pool: Literal["channel", "all"] = "channel"
    block: int | None = None
    dense_pool_scale: float | None = None


@dataclass(frozen=True)
class Variant:
    """A training that differs from the default in one factor.

    Args:
        name: Row of the tables.
        factor: What is varied.
        changes: Settings of `cellvim pretrain` that replace the default's.
        data: Data sets it is trained on.
        readings: Ways to read it; the first one stands for the run.
    """

    name: str
    factor: str
    changes: dict[str, Any] = field(default_factory=dict)
    data: tuple[DataName, ...] = BOTH
    more_readings: tuple[Reading, ...] = ()

    @property
    def readings(self) -> tuple[Reading, ...]:
        return (Reading(self.name), *self.more_readings)

    @property
    def folder(self) -> str:
        return self.name.replace(":", "").replace(" ", "-").replace(",", "")


def _readings_of(name: str) -> tuple[Reading, ...]:
    """Features over all channels, and of every block, beside those per channel of the final norm."""
    every_block = (Reading(f"{name}, block {number + 1}", block=number) for number in range(BLOCKS))
    return (Reading(f"{name}, over all channels", pool="all"), *every_block)


VARIANTS: tuple[Variant, ...] = (
    Variant(DEFAULT, "", more_readings=_readings_of(DEFAULT)),
    Variant(UNTRAINED, "", {"steps": 0}, more_readings=_readings_of(UNTRAINED)),
    Variant("masking: patches only", "masking", {"masking": {"channel_steps": 0.0}}),
    Variant("masking: channel_steps 1", "masking", {"masking": {"channel_steps": 1.0}}),
    Variant("order: spatial-first", "channel order", {"model": {"scan_order": "spatial-first"}}),
    Variant("order: alternating", "channel order", {"model": {"scan_order": "alternating"}}),
    Variant(
        "divisor: width",
        "pooling divisor",
        {"model": {"pool_divisor": "width"}},
        more_readings=(Reading("divisor: width, dense scale 0.25", dense_pool_scale=0.25),),
    ),
    Variant("backward rows: published", "backward rows", {"model": {"backward_rows": "published"}}),
    Variant("backbone: bag of channels", "backbone", {"model": {"backbone": "bag_of_channels"}}),
    Variant("backbone: channel ViT", "backbone", {"model": {"backbone": "channel_vit"}}),
    Variant("backbone: unpooled Vim", "backbone", {"model": {"backbone": "channel_vim"}}),
    Variant(
        "objective: align, replicates",
        "objective",
        {"objective": "align", "alignment": {"positives": "replicate"}},
        data=("synthetic",),
    ),
    Variant(
        "objective: align, one well", "objective", {"objective": "align", "alignment": {"positives": "well"}}
    ),
)


CONFIRMED = (
    DEFAULT,
    UNTRAINED,
    "masking: channel_steps 1",
    "backbone: bag of channels",
    "backbone: channel ViT",
    "objective: align, one well",
)
"""Trained again for longer, on other seeds. The list was fixed when only the first seed of the first stage was known;
whether a row was still ahead when that stage had finished, the page says."""

CHECKS = {"masking": ("reconstruction",)}
"""By factor, metrics that are no part of its verdict, as they are the very task that one side of it trains on."""


def checks_of(row: str) -> tuple[str, ...]:
    """Metrics that say whether the setting of a row did what it should, and not whether it is good."""
    factor = next((variant.factor for variant in VARIANTS if variant.name == row), "")
    return CHECKS.get(factor, ())


def variants_of(data: DataName) -> tuple[Variant, ...]:
    return tuple(variant for variant in VARIANTS if data in variant.data)


def rows_of(data: DataName) -> tuple[str, ...]:
    """Readings that a trained variant stands for, the default left out: what is compared with it."""
    return tuple(
        reading.name
        for variant in variants_of(data)
        if variant.factor
        for reading in variant.readings
    )  # fmt: skip


def readings_without_training(name: str = DEFAULT) -> tuple[str, ...]:
    """Other readings of the same weights."""
    return tuple(reading.name for reading in _readings_of(name))
