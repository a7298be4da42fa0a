"""Tables and metrics of every task, made up, on top of the made-up study of the report."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest

from cellvim.evaluate.report import ReportContent

LABELS = ("actin", "PI3K", "tubulin", "mTOR", "kinase")


@dataclasses.dataclass(frozen=True)
class Names:
    """What strangers have named."""

    tables: Sequence[str]
    perturbations: Sequence[str]
    labels: Sequence[str] = LABELS
    compounds: Sequence[str] = ("taxol", "nocodazole", "aspirin")
    plates: Sequence[str] = ("BR00000", "BR00001", "BR00002")
    splits: Sequence[str] = ("plate_held_out", "random_well (leaky)")
    sources: Sequence[str] = ("CORUM", "Reactome")
    unit: str = "uM"


def estimate(value: float, margin: float = 0.05) -> dict[str, float]:
    return {"value": value, "low": value - margin, "high": value + margin}


def filled(content: ReportContent, names: Names) -> ReportContent:
    """Give a report what the tasks of its sections would have found, for each of its tables."""
    generator = np.random.default_rng(1)
    makers = (replicate_tables, label_tables, relation_tables, dose_tables, probe_tables, batch_tables)
    stacked: dict[str, list[pl.DataFrame]] = {}
    for name in names.tables:
        for make in makers:
            for stem, table in make(generator, names).items():
                stacked.setdefault(stem, []).append(table.select(pl.lit(name).alias("table"), pl.all()))
    metrics = dict(content.metrics)
    metrics["tables"] = [
        {"name": name, "tasks": dict(content.metrics["tasks"]) | task_metrics(names, 0.1 * place)}
        for place, name in enumerate(names.tables)
    ]
    metrics["tasks"] = metrics["tables"][0]["tasks"]
    metrics["comparison"] = differences(names)
    metrics["choice"] = choice(names)
    metrics["provenance"] = provenance(names)
    disk = {stem: pl.concat(tables) for stem, tables in stacked.items()}
    return dataclasses.replace(content, metrics=metrics, tables_on_disk=disk)


def replicate_tables(generator: np.random.Generator, names: Names) -> dict[str, pl.DataFrame]:
    count = len(names.perturbations)
    similarity = np.linspace(0.1, 0.8, count)
    rows = pl.DataFrame(
        {
            "Metadata_Perturbation": list(names.perturbations), "replicates": [9] * count,
            "similarity": similarity, "threshold": [0.3] * count, "is_replicating": similarity > 0.3,
        }
    )  # fmt: skip
    edges = np.linspace(-0.5, 1, 13)
    bins = [
        {"kind": kind, "low": low, "high": high, "count": int(number)}
        for kind, values in (("replicates", similarity), ("null", generator.normal(scale=0.2, size=500)))
        for low, high, number in zip(edges, edges[1:], np.histogram(values, edges)[0], strict=False)
    ]
    return {"percent_replicating": rows, "percent_replicating_histogram": pl.DataFrame(bins)}


def label_tables(generator: np.random.Generator, names: Names) -> dict[str, pl.DataFrame]:
    members = [
        {
            "Metadata_Perturbation": name, "label": label, "ap": float(generator.uniform(0.2, 1)),
            "normalized_ap": 0.1, "positives": 2, "total": 8,
        }
        for place, label in enumerate(names.labels)
        for name in list(names.perturbations)[place % 7 : place % 7 + 3]
    ]  # fmt: skip
    perturbations = pl.DataFrame(members)
    means = perturbations.group_by("label", maintain_order=True).agg(
        pl.len().cast(pl.Int64).alias("perturbations"), pl.col("ap").mean().alias("map")
    )
    p = 10 ** (-4 * means["map"])
    labels = means.with_columns(
        pl.lit(0.2).alias("normalized_map"),
        p.alias("p"),
        (2 * p).clip(0, 1).alias("q"),
        pl.lit(1e-4).alias("smallest_p"),
    )
    nearest = [*names.perturbations[1:], names.perturbations[0]]
    queries = pl.DataFrame(
        {
            "Metadata_Perturbation": list(names.perturbations), "compound": list(names.perturbations),
            "label": [names.labels[place % 5] for place in range(len(nearest))], "nearest": nearest,
            "nearest_label": [names.labels[place % 3] for place in range(len(nearest))],
            "similarity": np.linspace(0.2, 0.9, len(nearest)),
            "is_correct": [None if place == 4 else place % 5 == place % 3 for place in range(len(nearest))],
        }
    )  # fmt: skip
    return {"consistency": labels, "consistency_perturbations": perturbations, "nsc": queries}


def relation_tables(generator: np.random.Generator, names: Names) -> dict[str, pl.DataFrame]:
    pairs = [
        {
            "first": first, "second": second, "source": source, "similarity": float(generator.uniform(-1, 1)),
            "percentile": 0.97, "is_recalled": place % 3 > 0,
        }
        for source in names.sources
        for place, (first, second) in enumerate(zip(names.perturbations, names.perturbations[1:], strict=False))
    ]  # fmt: skip
    return {"recall": pl.DataFrame(pairs)}


def dose_tables(generator: np.random.Generator, names: Names) -> dict[str, pl.DataFrame]:
    compounds, wells = [], []
    for place, compound in enumerate(names.compounds):
        for step, dose in enumerate((0.1, 1.0, 10.0)):
            for plate in names.plates:
                effect = (2 - place) * step / 4
                perturbation = names.perturbations[(3 * place + step) % len(names.perturbations)]
                wells.append(
                    (plate, "C03", perturbation, None, compound, dose, effect + generator.normal(scale=0.1))
                )
        q = (0.001, 0.03, None)[place % 3]
        compounds.append(
            (compound, names.unit, 3, 9, 0.9 - 0.4 * place, q, q, 0.001, (0.1, 10.0, None)[place % 3], 1.5)
        )
    for plate in names.plates:
        wells += [
            (plate, f"A{well:02}", "DMSO", "negcon", None, None, generator.normal(scale=0.1))
            for well in (1, 2)
        ]
    columns = (
        "compound",
        "unit",
        "doses",
        "wells",
        "trend",
        "p",
        "q",
        "smallest_p",
        "lowest_active_dose",
        "ec50",
    )
    keys = ("Metadata_Plate", "Metadata_Well", "Metadata_Perturbation", "Metadata_ControlType", "compound", "dose",
            "projection")  # fmt: skip
    z_prime = [0.71, 0.42, None]
    plates = {
        "Metadata_Plate": list(names.plates), "z_prime": [z_prime[place % 3] for place in range(len(names.plates))],
        "negative_controls": [8] * len(names.plates), "positive_controls": [4] * len(names.plates),
    }  # fmt: skip
    return {
        "dose": pl.DataFrame(compounds, schema=list(columns), orient="row"),
        "dose_wells": pl.DataFrame(wells, schema=list(keys), orient="row"),
        "dose_plates": pl.DataFrame(plates),
    }


def probe_tables(generator: np.random.Generator, names: Names) -> dict[str, pl.DataFrame]:
    rows = []
    for split in names.splits:
        for label in names.labels:
            counts = generator.multinomial(
                20,
                [0.5 if other == label else 0.5 / 4 for other in names.labels[:5]]
                if label in names.labels[:5]
                else [0.2] * 5,
            )
            rows += [
                {
                    "split": split, "label": label, "predicted": other, "count": int(count), "share": count / 20,
                    "low": max(0.0, count / 20 - 0.1), "high": min(1.0, count / 20 + 0.1),
                }
                for other, count in zip(names.labels[:5], counts, strict=True)
                if count
            ]  # fmt: skip
    return {"probe_confusion": pl.DataFrame(rows)}


def batch_tables(generator: np.random.Generator, names: Names) -> dict[str, pl.DataFrame]:
    del generator, names
    rows = [
        {"measure": measure, "batch_column": column, "value": value, "low": value - 0.03, "high": value + 0.03, "chance": chance}
        for measure, column, value, chance in (
            ("nearest neighbour", "Metadata_Plate", 0.61, 0.33), ("nearest neighbour", "biology", 0.55, 0.1),
            ("silhouette", "Metadata_Plate", -0.02, 0.0), ("silhouette", "biology", 0.12, 0.0),
            ("variance explained", "Metadata_Plate", 0.2, 0.02), ("variance explained", "biology", 0.5, 0.06),
        )
    ]  # fmt: skip
    return {"batch": pl.DataFrame(rows)}


def task_metrics(names: Names, penalty: float) -> dict[str, Any]:
    return {
        "percent_replicating": {"fraction_replicating": estimate(0.7 - penalty)},
        "consistency": {"mean_map": estimate(0.6 - penalty), "label": "Metadata_Mechanism", "chance_map": 0.3},
        "nsc": {"accuracy": estimate(0.6 - penalty), "chance": 0.2, "shuffled": 0.18, "queries": 9, "label": "Metadata_Mechanism"},
        "nscb": {"reason": "all labelled wells are of one batch"},
        "recall": {
            "recall": estimate(0.66 - penalty), "chance": 0.1, "pairs": 8 * len(names.sources),
            "sources": {source: {"recall": estimate(0.6 - 0.1 * place), "pairs": 8} for place, source in enumerate(names.sources)},
        },
        "dose": {"axis": "positive control", "fraction_significant": estimate(0.5 - penalty), "mean_z_prime": estimate(0.56)},
        "batch": {"silhouette": 0.1},
    }  # fmt: skip


def differences(names: Names) -> list[dict[str, Any]]:
    margins = (0.02, 0.3)
    return [
        {
            "task": task, "metric": metric, "table": names.tables[0], "against": other,
            "difference": estimate(0.1 if task == "activity" else -0.15, margins[place % 2]), "shared": 9,
        }
        for place, other in enumerate(names.tables[1:])
        for task in ("activity", "consistency")
        for metric in ("mean_map", "mean_normalized_map")
    ]  # fmt: skip


def choice(names: Names) -> dict[str, Any]:
    return {
        "task": "replicate_retrieval", "metric": "normalized_map", "perturbations": 9, "compounds": 9, "folds": 5,
        "chosen": names.tables[0], "estimate": estimate(0.55), "naive": 0.6,
        "tables": [
            {"name": name, "mean": estimate(0.6 - 0.1 * place), "times_chosen": 5 - place, "layers": [4 * place]}
            for place, name in enumerate(names.tables)
        ],
    }  # fmt: skip


def plain_names(content: ReportContent) -> Names:
    own = content.perturbations["Metadata_Perturbation"].unique(maintain_order=True).to_list()
    return Names(tables=content.tables, perturbations=own)


@pytest.fixture(scope="session")
def fill() -> Callable[[ReportContent, Names], ReportContent]:
    return filled


@pytest.fixture(scope="session")
def full_content(content: ReportContent) -> ReportContent:
    return filled(content, plain_names(content))


@pytest.fixture(scope="session")
def make_names() -> type[Names]:
    return Names


@pytest.fixture(scope="session")
def render() -> Callable[[ReportContent], str]:
    from cellvim.evaluate.report.page import render as render_page

    return render_page


def provenance(names: Names) -> dict[str, Any]:
    """Two plates that one command made, and tables of unknown origin."""
    hostile = names.perturbations[0]
    ingest = {
        "stage": "ingest",
        "command": f"cellvim ingest {hostile} --out plates",
        "settings_sha256": "a" * 64,
    }
    steps = [
        ingest | {
            "seed": None, "cellvim": "0.1.0",
            "reads": [{"name": f"images of {plate}", "kind": "images", "sha256": f"{number:064x}", "count": 1234}],
            "makes": [{"name": plate, "kind": "plate", "sha256": f"{number + 9:064x}"}],
        }
        for number, plate in enumerate(names.plates)
    ]  # fmt: skip
    return {
        "steps": steps, "images": 2468, "versions": {"cellvim": "0.1.0"},
        "tables": dict.fromkeys(names.tables, "b" * 64),
        "tasks": {"activity": {"normalize": "sphere", "control": hostile, "null_size": 10000, "seed": 0}},
    }  # fmt: skip
