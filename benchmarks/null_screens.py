"""Screens in which nothing does anything: random profiles under random labels, in designs that strain p-values."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from cellvim.config import EvaluateSettings, Normalization, TaskName
from cellvim.evaluate.screen import Screen
from cellvim.profiles import Profiles, normalize
from cellvim.statistics import generator_for

RETRIEVAL: tuple[TaskName, ...] = ("activity", "distinctiveness", "replicate_retrieval", "consistency")
WITHIN_PLATE: tuple[TaskName, ...] = ("activity", "distinctiveness", "consistency")
LABELS = 8


@dataclass(frozen=True)
class Design:
    """How the wells of a screen without effects lie, and how they are judged.

    Args:
        name: What it strains.
        replicates: Wells of each perturbation.
        plates: Plates over which the wells of a perturbation are dealt.
        controls: Negative controls per plate.
        layout: ``spread`` deals the replicates of a perturbation to the plates in turn, ``together`` puts all of
            them on one plate.
        features: Number of features.
        factors: Features are mixtures of so many sources and a little noise of their own; independent if 0.
        plate_shift: Standard deviation of what all wells of a plate share, in those of a well.
        column_shift: The same for what all negative controls of a plate share and no other well has, as when
            they fill a column of their own. Then controls and treated wells differ, and the null is false.
        normalize: Normalisation before the tasks; `activity` fits it anew for each fold of controls.
        tasks: Tasks that are judged.
        labels: Number of targets, of which each perturbation has one or two.
        has_single_wells: Whether single wells are judged, too.
        broken: Judge that must fail here, if any.
    """

    name: str
    replicates: tuple[int, ...]
    plates: int = 3
    controls: int = 12
    layout: Literal["spread", "together"] = "spread"
    features: int = 16
    factors: int = 0
    plate_shift: float = 0.0
    column_shift: float = 0.0
    normalize: Normalization = "none"
    tasks: tuple[TaskName, ...] = RETRIEVAL
    labels: int = LABELS
    has_single_wells: bool = False
    broken: str = ""

    @property
    def is_null(self) -> bool:
        """Whether controls and treated wells are alike."""
        return not self.column_shift


DESIGNS = (
    Design("2 replicates", (2,) * 50),
    Design("3 replicates", (3,) * 40, has_single_wells=True),
    Design("6 replicates", (6,) * 24, has_single_wells=True, broken="the best well decides"),
    Design("12 replicates, 4 plates", (12,) * 16, plates=4),
    Design("few controls", (3,) * 40, controls=5),
    Design("unequal replicates", (2, 3, 4, 5, 8, 12) * 5),
    Design("6 replicates on one plate", (6,) * 24, layout="together", tasks=WITHIN_PLATE),
    Design("two plates", (4,) * 30, plates=2),
    Design("correlated features", (3,) * 40, factors=3, has_single_wells=True),
    Design("standardize, plates differ", (4,) * 30, plate_shift=2, factors=6, normalize="standardize"),
    Design("mad, plates differ", (4,) * 30, plate_shift=2, factors=6, normalize="mad"),
    Design("sphere, plates differ", (4,) * 30, plate_shift=2, factors=6, normalize="sphere"),
    Design("sphere, one plate, unequal", (2, 3, 4, 5, 8, 12) * 5, plate_shift=2, factors=6, layout="together",
           normalize="sphere", tasks=WITHIN_PLATE),
    Design(
        "many features, few controls",
        (3,) * 40,
        controls=8,
        features=200,
        layout="together",
        normalize="standardize",
        tasks=("activity",),
        broken="a fit that saw the controls",
    ),
    Design(
        "many features, few controls, across plates",
        (2,) * 12,
        plates=2,
        controls=16,
        features=200,
        normalize="sphere",
        tasks=("replicate_retrieval",),
    ),
    # Single wells would do: consistency is about perturbations, and each label gives one p-value.
    Design("many labels", (1,) * 240, labels=100, tasks=("consistency",), has_single_wells=True),
    Design("plates differ, not normalised", (3,) * 40, plate_shift=2),
    Design("controls differ from all others", (3,) * 40, column_shift=1.0),
)  # fmt: skip


def null_screen(design: Design, run: int, *, null_size: int) -> Screen:
    """Draw one screen of a design; a function of the design and of the number of the run.

    Args:
        design: Where the wells lie.
        run: Number of the run. It seeds the profiles, the labels and the sampled null distributions.
        null_size: Random rank lists behind each p-value.
    """
    generator = generator_for(run, "calibration", design.name)
    metadata = null_metadata(design, generator)
    raw = Profiles(
        metadata=metadata,
        features=null_features(design, metadata, generator),
        feature_names=tuple(f"emb_{index:04}" for index in range(design.features)),
        provenance={},
        source=Path("null.parquet"),
        name=design.name,
    )
    settings = EvaluateSettings(
        tables=(Path("null.parquet"),),
        out=Path("null"),
        normalize=design.normalize,
        label="Metadata_Target",
        null_size=null_size,
        bootstraps=1,
        seed=run,
    )
    return Screen(raw, normalize(raw, design.normalize), settings)


def null_metadata(design: Design, generator: np.random.Generator) -> pl.DataFrame:
    """Wells by plate: controls, then treated wells; targets are dealt to perturbations at random, one or two each."""
    count = len(design.replicates)
    targets = [
        "|".join(
            f"target {label}" for label in generator.choice(design.labels, size=1 + place % 2, replace=False)
        )
        for place in range(count)
    ]
    wells = [
        (plate, "DMSO", "negcon", None) for plate in range(design.plates) for _ in range(design.controls)
    ]
    for place, replicates in enumerate(design.replicates):
        for replicate in range(replicates):
            plate = (place if design.layout == "together" else place + replicate) % design.plates
            wells.append((plate, f"drug {place:03}", None, targets[place]))
    wells.sort(key=lambda well: well[0])
    taken = [0] * design.plates
    rows = []
    for plate, name, control, target in wells:
        position = taken[plate]
        taken[plate] += 1
        rows.append(
            (
                f"P{plate + 1}",
                f"{'ABCDEFGHIJKLMNOP'[position // 24]}{position % 24 + 1:02}",
                name,
                control,
                target,
            )
        )
    columns = ("Plate", "Well", "Perturbation", "ControlType", "Target")
    return pl.DataFrame(rows, schema={f"Metadata_{name}": pl.String for name in columns}, orient="row")


def null_features(design: Design, metadata: pl.DataFrame, generator: np.random.Generator) -> np.ndarray:
    """Noise of the wells, and what the wells of a plate or its controls share; labels play no part."""
    wells = metadata.height
    features = generator.normal(size=(wells, design.features))
    if design.factors:
        mixing = generator.normal(size=(design.factors, design.features))
        features = generator.normal(size=(wells, design.factors)) @ mixing + 0.1 * features
    plate = np.unique(metadata["Metadata_Plate"].to_numpy(), return_inverse=True)[1]
    shape = (design.plates, design.features)
    is_control = metadata["Metadata_ControlType"].is_not_null().to_numpy()
    features += design.plate_shift * generator.normal(size=shape)[plate]
    features += design.column_shift * generator.normal(size=shape)[plate] * is_control[:, None]
    return features.astype(np.float32)
