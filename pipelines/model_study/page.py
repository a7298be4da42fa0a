"""The results of the model study as a page of Markdown; every number comes from the finished runs."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from pipelines.model_study.chance import chance_levels
from pipelines.model_study.findings import describe_findings, describe_first_stage, format_difference
from pipelines.model_study.plates import list_compounds, novel_compounds
from pipelines.model_study.results import METRICS, Comparison, StudyResults
from pipelines.model_study.run import Study
from pipelines.model_study.text import (
    CAVEATS,
    DATA_TITLES,
    LEGEND,
    METRIC_NAMES,
    PICTURE,
    READING,
    SAME_PLATE,
    confirmation,
    count,
    design,
    introduction,
)
from pipelines.model_study.variants import (
    DEFAULT,
    INTENSITY,
    UNTRAINED,
    VARIANTS,
    DataName,
    readings_without_training,
    variants_of,
)

ALIGNED = ("objective: align, replicates", "objective: align, one well")


def results_page(
    study: Study, results: StudyResults, pictures: Mapping[DataName, str], confirmed: StudyResults
) -> str:
    """Lay out the whole page.

    Args:
        study: What was planned.
        results: All finished runs.
        pictures: Link to the picture of each data set.
        confirmed: Finished runs of the second stage; there may be none.
    """
    stains = {data: len(results.stains(data)) for data in results.contents}
    parts = [introduction(study), "## What the study says\n", *describe_findings(results, confirmed)]
    parts.append(design(study, stains))
    for data in results.contents:
        parts += [f"## {DATA_TITLES[data]}\n", f"![{PICTURE}]({pictures[data]})\n", LEGEND]
        parts += ["### Values\n", _values_table(results, data), _values_note(study, results, data)]
        parts += ["### Differences from the default\n", _differences_table(results, data)]
        parts += ["### Features of the same weights\n", _readings_table(results, data)]
        parts += ["### Which stain can be told from the others\n", _stains_table(results, data)]
        if data == "synthetic":
            parts += ["### Alignment, on compounds it never saw\n", _novel_table(results)]
    if DEFAULT in confirmed.contents["synthetic"]:
        parts += [confirmation(describe_first_stage(results)), "### Values\n"]
        parts += [
            _values_table(confirmed, "synthetic"),
            _values_note(study.confirmation, confirmed, "synthetic"),
        ]
        parts += ["### Differences from the default\n", _differences_table(confirmed, "synthetic")]
    return "\n".join([*parts, READING, CAVEATS])


def _values_table(results: StudyResults, data: DataName) -> str:
    metrics = METRICS[data]
    names = [
        *(reading.name for variant in variants_of(data) for reading in variant.readings),
        INTENSITY,
    ]
    skipped = {*readings_without_training(DEFAULT), *readings_without_training(UNTRAINED)}
    rows = [
        [row, *(_value(results, data, row, metric) for metric in metrics), *_costs(results, data, row)]
        for row in names
        if row in results.contents[data] and row not in skipped
    ]
    heads = ("profiles", *(METRIC_NAMES[metric] for metric in metrics), "weights", "ms per step")
    return _table(heads, rows)


def _values_note(study: Study, results: StudyResults, data: DataName) -> str:
    note = "Mean over seeds, and standard deviation over seeds: the default's is the yardstick of noise.\n"
    if data == "bbbc013":
        return f"{note}\n{SAME_PLATE}\n"
    chance = chance_levels(study.size)
    levels = ", ".join(f"{METRIC_NAMES[metric]} {level:.3f}" for metric, level in chance.items())
    note += f"\nChance level: {levels}, hidden stain 0.\n"
    if not results.has(data, DEFAULT, "inert_activity"):
        return note
    inert = results.by_seed(data, DEFAULT, "inert_activity")
    return (
        f"{note}\nNegative control: the inert perturbations have an activity of {inert.mean():.3f} by the default "
        f"({count(inert.size, 'seed')}), where a random order gives {chance['activity']:.3f}. Above that would mean "
        "that something else than the treatment is found. Below it is where such a well belongs: it and the controls of "
        "its plate are normalised by the same few controls and share the error of that, its replicates on other plates "
        "do not. Controls that are given a name on several plates come out below it too, on one plate they do not.\n"
    )


def _differences_table(results: StudyResults, data: DataName) -> str:
    families = (results.references, results.against_default)
    rows = list(dict.fromkeys(row for family in families for found in family[data].values() for row in found))
    return _comparison_table(rows, [family[data] for family in families], METRICS[data])


def _readings_table(results: StudyResults, data: DataName) -> str:
    """The default's blocks and pooling with intervals; the untrained encoder's beside them as values."""
    metrics = [metric for metric in METRICS[data] if metric != "reconstruction"]
    table = _comparison_table(list(readings_without_training()), [results.other_readings[data]], metrics)
    rows = [
        [row, *(_value(results, data, row, metric) for metric in metrics)]
        for name in (DEFAULT, UNTRAINED)
        for row in (name, *readings_without_training(name))
        if row in results.contents[data]
    ]
    heads = ("features", *(METRIC_NAMES[metric] for metric in metrics))
    return (
        f"Against the default's features, which are per channel, of the final norm:\n\n{table}\nValues:\n\n"
        + _table(heads, rows)
    )


def _stains_table(results: StudyResults, data: DataName) -> str:
    runs = {
        name: [run["stains"] for run in found if run["stains"]] for name, found in results.runs[data].items()
    }
    stains = next((list(found[0]) for found in runs.values() if found), [])
    rows = [
        ["linear regression" if name == INTENSITY else name]
        + [f"{np.mean([run[stain] for run in found]):.3f}" for stain in stains]
        for name, found in runs.items()
        if found
    ]
    return _table(("hidden stain", *stains), rows)


def _novel_table(results: StudyResults) -> str:
    """Aligned encoders by compounds of the judged plates that were on no learned plate, and by the others."""
    novel = novel_compounds()
    metrics = ("activity", "retrieval", "probe")
    units = {"compounds never seen": novel}
    known = frozenset(compound.name for compound in list_compounds(1.0)) - novel
    units["compounds on the learned plates"] = known
    rows = []
    for title, chosen in units.items():
        found = {metric: results.compare("synthetic", ALIGNED, metric, units=chosen) for metric in metrics}
        rows += [
            [f"{row}: {title}", *(_difference(found[metric][row]) for metric in metrics)]
            for row in ALIGNED
            if row in found["activity"]
        ]
    note = "These are parts of comparisons above, and are not counted among the families.\n"
    return (
        note + "\n" + _table(("aligned minus default", *(METRIC_NAMES[metric] for metric in metrics)), rows)
    )


def _comparison_table(
    rows: Iterable[str], families: Sequence[Mapping[str, Mapping[str, Comparison]]], metrics: Sequence[str]
) -> str:
    found = {
        metric: {row: comparison for family in families for row, comparison in family[metric].items()}
        for metric in metrics
    }
    lines = [
        [row, *(_difference(found[metric][row]) if row in found[metric] else "" for metric in metrics)]
        for row in rows
        if any(row in found[metric] for metric in metrics)
    ]
    return _table(("minus default", *(METRIC_NAMES[metric] for metric in metrics)), lines)


def _difference(comparison: Comparison) -> str:
    text = format_difference(comparison.difference)
    if comparison.finding == "noise":
        return text
    return f"**{text}**" if comparison.finding in ("better", "worse") else f"*{text}*"


def _value(results: StudyResults, data: DataName, row: str, metric: str) -> str:
    if not results.has(data, row, metric):
        return ""
    values = results.by_seed(data, row, metric)
    return f"{values.mean():.3f} ± {values.std(ddof=1):.3f}" if values.size > 1 else f"{values.mean():.3f}"


def _costs(results: StudyResults, data: DataName, row: str) -> list[str]:
    runs = results.runs[data].get(row, [])
    if not runs or row not in {variant.name for variant in VARIANTS}:
        return ["", ""]
    speeds = [run["milliseconds_per_step"] for run in runs if run["milliseconds_per_step"] is not None]
    return [f"{runs[0]['parameters']:,}", f"{np.median(speeds):.0f}" if speeds else ""]


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    if not (found := list(rows)):
        return "Nothing is finished yet.\n"
    lines = [heads, ["---"] * len(heads), *found]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
