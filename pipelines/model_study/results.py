"""What the finished runs of the model study add up to: tables of values, and every variant against the default."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from cellvim.atomic import read_json
from pipelines.model_study.run import Study
from pipelines.model_study.statistics import Difference, holm, paired_difference
from pipelines.model_study.variants import (
    DEFAULT,
    INTENSITY,
    UNTRAINED,
    DataName,
    readings_without_training,
    rows_of,
    variants_of,
)

METRICS: dict[DataName, tuple[str, ...]] = {
    "synthetic": ("activity", "retrieval", "probe", "reconstruction"),
    "bbbc013": ("activity", "high_doses", "separation", "trend", "reconstruction"),
}
LEVEL = 0.05

Finding = Literal["better", "worse", "suggested better", "suggested worse", "noise"]
Row = Mapping[str, Mapping[int, Mapping[str, float]]]
"""Metric, then seed, then unit, then value."""


@dataclass(frozen=True)
class Comparison:
    """One variant against the default by one metric."""

    difference: Difference
    adjusted_p: float | None

    @property
    def finding(self) -> Finding:
        """What the rule says, which was fixed before any result was seen."""
        side: Literal["better", "worse"] = "better" if self.difference.value > 0 else "worse"
        if self.adjusted_p is not None and self.adjusted_p < LEVEL:
            return side
        if self.difference.excludes_zero:
            return "suggested better" if side == "better" else "suggested worse"
        return "noise"


@dataclass(frozen=True)
class StudyResults:
    """Everything that the finished runs wrote down.

    Args:
        contents: For each data set, from row to metric to seed to unit to value.
        runs: For each data set, from variant to the JSON of each of its seeds.
        seeds: Seeds of the study.
    """

    contents: Mapping[DataName, Mapping[str, Row]]
    runs: Mapping[DataName, Mapping[str, Sequence[dict[str, Any]]]]
    seeds: tuple[int, ...]

    @classmethod
    def read(cls, study: Study) -> "StudyResults":
        """Read what is there; rows that are not finished are left out."""
        contents: dict[DataName, dict[str, Row]] = {}
        runs: dict[DataName, dict[str, list[dict[str, Any]]]] = {}
        for data in study.data:
            rows: dict[str, dict[str, dict[int, dict[str, float]]]] = {}
            runs[data] = {}
            for name, seed, content in _finished(study, data):
                runs[data].setdefault(name, []).append(content)
                for reading, measures in content["readings"].items():
                    for metric, values in measures.items():
                        rows.setdefault(reading, {}).setdefault(metric, {})[seed] = values
            contents[data] = dict(rows)
        return cls(contents, runs, study.seeds)

    def has(self, data: DataName, row: str, metric: str) -> bool:
        return metric in self.contents[data].get(row, {})

    def stains(self, data: DataName) -> tuple[str, ...]:
        """Stains of the data set; none while no run is finished."""
        found = (tuple(run["stains"]) for runs in self.runs[data].values() for run in runs if run["stains"])
        return next(found, ())

    def by_seed(
        self, data: DataName, row: str, metric: str, units: frozenset[str] | None = None
    ) -> Float64[ndarray, " seed"]:
        """Mean over units, by seed."""
        return np.array(
            [
                np.mean([value for unit, value in values.items() if units is None or unit in units])
                for values in self.contents[data][row][metric].values()
            ]
        )

    def compare(
        self,
        data: DataName,
        rows: Sequence[str],
        metric: str,
        *,
        reference: str = DEFAULT,
        units: frozenset[str] | None = None,
    ) -> dict[str, Comparison]:
        """Compare rows with a reference; they are one family, for which p-values are adjusted together."""
        found = {
            row: paired_difference(self._differences(data, row, reference, metric, units))
            for row in rows
            if self._shared_seeds(data, row, reference, metric)
        }
        adjusted = holm([difference.p for difference in found.values()])
        return {
            row: Comparison(difference, p)
            for (row, difference), p in zip(found.items(), adjusted, strict=True)
        }

    @cached_property
    def against_default(self) -> dict[DataName, dict[str, dict[str, Comparison]]]:
        """Every other training against the default, by data set and metric."""
        return {
            data: {metric: self.compare(data, rows_of(data), metric) for metric in METRICS[data]}
            for data in self.contents
        }

    @cached_property
    def other_readings(self) -> dict[DataName, dict[str, dict[str, Comparison]]]:
        """Other features of the default's weights against its default features."""
        rows = readings_without_training()
        return {
            data: {metric: self.compare(data, rows, metric) for metric in METRICS[data]}
            for data in self.contents
        }

    @cached_property
    def references(self) -> dict[DataName, dict[str, dict[str, Comparison]]]:
        """The untrained encoder and the baseline without one; no family, as neither is a candidate."""
        return {
            data: {
                metric: {
                    row: comparison
                    for name in (UNTRAINED, INTENSITY)
                    for row, comparison in self.compare(data, [name], metric).items()
                }
                for metric in METRICS[data]
            }
            for data in self.contents
        }

    def _shared_seeds(self, data: DataName, row: str, reference: str, metric: str) -> list[int]:
        """Seeds that both rows are finished for; none if a row lacks the metric."""
        if not (self.has(data, row, metric) and self.has(data, reference, metric)):
            return []
        # The baselines of BBBC013 know of no seed: their single value stands against every seed.
        is_seedless = data == "bbbc013" and row == INTENSITY
        ours, theirs = self.contents[data][row][metric], self.contents[data][reference][metric]
        return [seed for seed in theirs if seed in ours or is_seedless]

    def _differences(
        self, data: DataName, row: str, reference: str, metric: str, units: frozenset[str] | None
    ) -> Float64[ndarray, "seed unit"]:
        ours, theirs = self.contents[data][row][metric], self.contents[data][reference][metric]
        seeds = self._shared_seeds(data, row, reference, metric)
        any_of_ours = next(iter(ours.values()))
        names = [name for name in theirs[seeds[0]] if units is None or name in units]
        return np.array(
            [[ours.get(seed, any_of_ours)[name] - theirs[seed][name] for name in names] for seed in seeds]
        )


def _finished(study: Study, data: DataName) -> list[tuple[str, int, dict[str, Any]]]:
    found = []
    for seed in study.seeds:
        paths = {variant.name: study.result(data, variant, seed) for variant in variants_of(data)}
        paths[INTENSITY] = study.baseline(data, seed)
        found += [(name, seed, read_json(path)) for name, path in paths.items() if path.is_file()]
    return found
