"""The answer in words and in a few large numbers, for a reader who stops after one screen."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from cellvim.evaluate.report.content import SIGNIFICANT_Q, TASK_LABELS, TASK_QUESTIONS, ReportContent
from cellvim.evaluate.report.wording import (
    counted,
    estimate_of,
    listed,
    probability,
    score,
    spelled,
    with_interval,
)
from cellvim.evaluate.significance import benjamini_hochberg
from cellvim.statistics import Estimate

MEASURED_AGAINST = {
    "activity": "differ from their plate's negative controls",
    "distinctiveness": "are distinct from the other perturbations of their plate",
    "replicate_retrieval": "come back on another plate",
}
HELD_OUT = {
    "plate_held_out": "Whole plates are held out; the same perturbations are on both sides.",
    "perturbation_held_out": (
        "Whole perturbations are held out, with all doses of a compound that the table names; "
        "the same plates are on both sides."
    ),
    "random_well (leaky)": (
        "Single wells are held out; the same plates and perturbations are on both sides, which usually flatters."
    ),
}


MOST_LEADERS = 6


@dataclass(frozen=True)
class Leader:
    """What was shown to do something.

    Args:
        name: The perturbation to follow.
        title: What it is called at the top of the page: the perturbation, or the compound whose dose it is.
        said: How strongly, and how surely.
        is_of_doses: Shown by all doses of the compound together, and not by this perturbation alone.
    """

    name: str
    title: str
    said: str
    is_of_doses: bool = False


@dataclass(frozen=True)
class Tile:
    """One headline number."""

    label: str
    question: str
    estimate: Estimate
    unit: str
    details: tuple[str, ...]


@dataclass(frozen=True)
class Probe:
    """How well a linear classifier read the label from profiles of one table, under one split.

    Without an accuracy, `reason` says why the split was not judged.
    """

    table: str
    split: str
    accuracy: Estimate | None
    macro_f1: Estimate | None
    shuffled: Estimate | None
    commonest: Estimate | None
    reason: str
    unlearnable: int

    @property
    def is_leaky(self) -> bool:
        return "leaky" in self.split.lower()


def headline(content: ReportContent) -> str:
    """Say how many perturbations do something, and how strongly; then what the doses show."""
    return " ".join(
        sentence for sentence in (activity_in_words(content), doses_in_words(content)) if sentence
    )


def activity_in_words(content: ReportContent) -> str:
    if not content.tasks or not content.tables:
        return f"{_extent(content.wells)}; no retrieval task was run."
    task = content.tasks[0]
    tested = _tested(content, task)
    if tested.is_empty():
        return f"{_extent(content.wells)}; no perturbation has replicates to judge {TASK_LABELS[task]} by."
    significant = tested.filter(pl.col(f"{task}_q") < SIGNIFICANT_Q).height
    strength = estimate_of(metrics_of(content, content.tables[0], task).get("mean_map"))
    ending = f"; mean mAP {with_interval(strength)}" if strength else ""
    if not could_be_shown(tested, task):
        return (
            f"None of {counted(tested.height, 'perturbation')} could be shown to {MEASURED_AGAINST[task]}, whatever they "
            f"do: too few replicates or controls for q < {SIGNIFICANT_Q:g}{ending}."
        )
    return (
        f"{significant} of {counted(tested.height, 'perturbation')} {MEASURED_AGAINST[task]} "
        f"(q < {SIGNIFICANT_Q:g}){ending}."
    )


def could_be_shown(tested: pl.DataFrame, task: str) -> bool:
    """Whether any q could have been small, had every perturbation done all that its replicates can show."""
    name = f"{task}_smallest_p"
    if name not in tested.columns or tested[name].null_count():
        return True
    return bool(benjamini_hochberg(tested[name].cast(pl.Float64).to_numpy()).min() < SIGNIFICANT_Q)


def doses_in_words(content: ReportContent) -> str:
    """How many compounds rise with the dose, at which dose half of it is seen, and whether the controls are apart."""
    metrics = metrics_of(content, content.tables[0], "dose") if content.tables else {}
    share = estimate_of(metrics.get("fraction_significant"))
    tested = int(metrics.get("compounds_tested", 0))
    if share is None or not tested:
        return ""
    count = round(share.value * tested)
    rising = [f"{_short(one['compound'])}{_half_effect(one)}" for one in metrics.get("leading", ())]
    named = listed(rising + [""] * (count - len(rising))) if rising else ""
    z_prime = estimate_of(metrics.get("mean_z_prime"))
    return (
        f"{count} of {counted(tested, 'compound')} {'rises' if tested == 1 else 'rise'} with the dose "
        f"(q < {SIGNIFICANT_Q:g}){': ' if named else ''}{named}."
        + (f" Z' of the controls {with_interval(z_prime)}." if z_prime else "")
    )


def _half_effect(compound: Mapping[str, Any]) -> str:
    ec50 = estimate_of(compound.get("ec50"))
    return f" (EC50 {ec50.value:.3g} {compound.get('unit') or ''}".rstrip() + ")" if ec50 else ""


def leaders(content: ReportContent) -> list[Leader]:
    """What was shown to do something, strongest first, as many as fit at the top of the page.

    Perturbations one by one; where none could be shown, compounds by all their doses.
    """
    if not content.tasks or not content.tables:
        return []
    task = content.tasks[0]
    active = _ranked(content, task).filter(pl.col(f"{task}_q") < SIGNIFICANT_Q).head(MOST_LEADERS)
    columns = [pl.col("Metadata_Perturbation").cast(pl.String), f"{task}_map", f"{task}_q"]
    found = [
        Leader(name or "", name or "", f"mAP {score(strength)}, q {probability(q)}")
        for name, strength, q in active.select(columns).iter_rows()
    ]
    return found or rising_compounds(content)


def rising_compounds(content: ReportContent) -> list[Leader]:
    """Compounds that rise with the dose, each with its highest dose to follow."""
    metrics = metrics_of(content, content.tables[0], "dose")
    wells = content.tables_on_disk.get("dose_wells")
    if wells is None:
        return []
    own = wells.filter((pl.col("table").cast(pl.String) == content.tables[0]) & pl.col("dose").is_not_null())
    highest = own.sort("dose", "Metadata_Perturbation", descending=[True, False])
    names = {
        str(compound): str(name)
        for compound, name in highest.select("compound", "Metadata_Perturbation").reverse().iter_rows()
    }
    return [
        Leader(
            name=names[str(one["compound"])],
            title=str(one["compound"]),
            said=f"trend {score(one['trend'])}, q {probability(one['q'])}{_half_effect(one)}",
            is_of_doses=True,
        )
        for one in metrics.get("leading", ())
        if str(one["compound"]) in names
    ][:MOST_LEADERS]


def silent(content: ReportContent) -> str:
    """Name perturbations that cannot be told from the controls."""
    if not content.tasks or not content.tables:
        return ""
    task = content.tasks[0]
    found = _ranked(content, task).filter(pl.col(f"{task}_q") >= SIGNIFICANT_Q)
    if found.is_empty() or not could_be_shown(_tested(content, task), task):
        return ""
    names = [_short(name) for name in found["Metadata_Perturbation"].cast(pl.String)]
    return f"Not shown to differ, which does not prove them inert: {listed(names)}."


def tiles(content: ReportContent) -> list[Tile]:
    """One headline number per retrieval task of the first table, and one per honest probe."""
    if not content.tables:
        return []
    found = [_retrieval_tile(content, task) for task in content.tasks]
    honest = [probe for probe in probes(content) if probe.table == content.tables[0] and not probe.is_leaky]
    judged = [_probe_tile(probe, probe.accuracy) for probe in honest if probe.accuracy]
    return [tile for tile in found if tile] + judged


def metrics_of(content: ReportContent, table: str, task: str) -> Mapping[str, Any]:
    """Metrics of one task of one table; empty if it was not run."""
    return _mapping(tasks_of(content, table).get(task))


def tasks_of(content: ReportContent, table: str) -> Mapping[str, Any]:
    """Metrics of every task of one table, by task."""
    for entry in content.metrics.get("tables", []):
        if str(entry.get("name")) == table:
            return _mapping(entry.get("tasks"))
    return _mapping(content.metrics.get("tasks"))


def probes(content: ReportContent) -> list[Probe]:
    """Every probe of every table, splits named exactly as in metrics.json."""
    found = []
    for table in content.tables:
        metrics = metrics_of(content, table, "probe")
        found += [
            _probe(table, split, values) for split, values in metrics.items() if isinstance(values, Mapping)
        ]
    return found


def _probe(table: str, split: str, values: Mapping[str, Any]) -> Probe:
    return Probe(
        table=table,
        split=split,
        accuracy=estimate_of(values.get("accuracy")),
        macro_f1=estimate_of(values.get("macro_f1")),
        shuffled=estimate_of(_mapping(values.get("shuffled")).get("accuracy")),
        commonest=estimate_of(values.get("chance")),
        reason=str(values.get("reason", "")),
        unlearnable=int(values.get("unlearnable_wells", 0)),
    )


def _retrieval_tile(content: ReportContent, task: str) -> Tile | None:
    metrics = metrics_of(content, content.tables[0], task)
    strength = estimate_of(metrics.get("mean_map"))
    if strength is None:
        return None
    tested = _tested(content, task)
    significant = tested.filter(pl.col(f"{task}_q") < SIGNIFICANT_Q).height
    normalized = estimate_of(metrics.get("mean_normalized_map"))
    chance = estimate_of(metrics.get("chance_map"))
    details = [
        f"{significant} of {tested.height:,} with q\N{NO-BREAK SPACE}<\N{NO-BREAK SPACE}{SIGNIFICANT_Q:g}"
    ]
    details += [f"chance {chance.value:.2f}"] if chance else []
    details += [f"normalised {normalized.value:.2f}"] if normalized else []
    return Tile(TASK_LABELS[task], TASK_QUESTIONS[task], strength, "mean mAP", tuple(details))


def _probe_tile(probe: Probe, accuracy: Estimate) -> Tile:
    details = [f"shuffled labels {probe.shuffled.value:.2f}"] if probe.shuffled else []
    details += [f"macro F1 {probe.macro_f1.value:.2f}"] if probe.macro_f1 else []
    question = f"Can a linear classifier read the label? {HELD_OUT.get(probe.split, '')}".strip()
    return Tile(f"Probe, {spelled(probe.split)}", question, accuracy, "accuracy", tuple(details))


def _tested(content: ReportContent, task: str) -> pl.DataFrame:
    first = content.perturbations.filter(pl.col("table") == content.tables[0])
    return first.filter(pl.col(f"{task}_q").is_not_null() & pl.col(f"{task}_q").is_finite())


def _ranked(content: ReportContent, task: str) -> pl.DataFrame:
    order = [f"{task}_map", "Metadata_Perturbation"]
    return _tested(content, task).sort(order, descending=[True, False])


def _short(name: str | None, most: int = 40) -> str:
    text = name or ""
    return text if len(text) <= most else f"{text[: most - 1]}\N{HORIZONTAL ELLIPSIS}"


def _extent(wells: pl.DataFrame) -> str:
    plates = wells["Metadata_Plate"].n_unique() if "Metadata_Plate" in wells.columns else 1
    return f"{counted(wells.height, 'well')} on {counted(plates, 'plate')}"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
