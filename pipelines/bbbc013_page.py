"""The results of the BBBC013 study as a page of Markdown; every number comes from `results.json`."""

from collections.abc import Iterable, Sequence
from typing import Any

INTRODUCTION = """# BBBC013: protein translocation by dose

One plate (1049) of U2OS cells with FKHR-EGFP and a DNA stain: wortmannin and LY294002 in nine doses, two wells
each, 6 untreated wells as negative controls, 4 positive controls. 48 wells, one field of 640 x 640 pixels each.
Written by `python -m pipelines.bbbc013`; no number below was typed by hand.

Both drugs inhibit PI3K and move the protein into the nucleus. Low doses look untreated, so no method should find
them active. All rows are profiles of the same wells, normalised the same way (sphered and standardised on untreated
wells) and judged by the same `cellvim evaluate`.

Image set BBBC013v1 (Ilya Ravkin), Broad Bioimage Benchmark Collection, Ljosa et al., Nature Methods 2012; CC BY 3.0.
"""

READING = """
## How to read it

- **Activity**: mean average precision of retrieving a treated well's replicates against the untreated wells of the
  plate. *By dose*: the replicates are the two wells of one dose (four for 80 uM), so chance is high, and a p-value
  cannot be small. *By compound*: all wells of a compound, low doses included. Intervals: bootstrap over
  perturbations; by compound there are only two, so its interval says little.
- **Differences** are taken well by well, averaged over the seeds of training; their intervals resample doses.
- **Trend**: Spearman correlation of dose with the place of a well on the axis from untreated (0) to positive
  control (1). Intervals: bootstrap over wells.
- **Z'**: separation of the plate's controls on that axis. Every control is placed by an axis and a normalisation
  that have not seen it. 6 and 4 wells: intervals are wide.
- **High doses among all**: mean average precision with which positive controls and the three highest doses of both
  compounds find each other among all 48 wells.
- **Separation**: distance from untreated wells to positive controls in all features, over the distance of an
  untreated well from the other untreated ones. It has no upper end. Activity has: see in the table of doses how many
  have an mAP of 1 by encoders trained and untrained alike, and how many are near chance for both. What is left
  between them is a few doses of two wells each, so activity tells encoders apart badly on this plate.
- The encoder is trained on the pixels of this very plate, without any label. Columns are doses and rows are
  replicates: position and dose are confounded, for every method alike.
- **Shuffled** rows: the trained profiles with the plate map shuffled. Whatever they show is chance.
"""


def results_page(results: dict[str, Any]) -> str:
    """Lay out what `run_study` returns."""
    parts = [
        INTRODUCTION,
        "## Trained encoder and baselines\n",
        _table(("profiles", *_HEADS), [_row(name, results) for name in results["tables"]]),
    ]
    if results["more_seeds"]:
        parts += [
            "\n## Other seeds of training and initialisation\n",
            _table(("profiles", *_HEADS), [_row(name, results) for name in results["more_seeds"]]),
        ]
    parts += [
        "\n## The trained encoder against each baseline\n",
        _table(("difference of mAP, all seeds", "by dose", "by compound"), _difference_rows(results)),
        "\n## Negative control\n",
        _table(("profiles", "activity by dose", "perturbations with q < 0.05"), _shuffled_rows(results)),
        "\n## Activity of every dose\n",
        _table(("perturbation", *results["tables"]), _dose_rows(results)),
        "\nmAP, and its p-value in brackets.\n",
        READING,
    ]
    return "\n".join(parts)


_HEADS = (
    "activity by dose",
    "activity by compound",
    "high doses among all",
    "trend wortmannin",
    "trend LY294002",
    "Z'",
    "separation",
)


def _row(name: str, results: dict[str, Any]) -> list[str]:
    response = results["dose_response"][name]
    return [
        name,
        _estimate(results["by_dose"]["tables"][name]["activity"]["mean_map"]),
        _estimate(results["by_compound"]["tables"][name]["activity"]["mean_map"]),
        _estimate(response["high_dose_map"]),
        *(_estimate(response["compounds"][compound]["spearman"]) for compound in ("Wortmannin", "LY294002")),
        _estimate(response["z_prime"]),
        _estimate(response["separation"]),
    ]


def _difference_rows(results: dict[str, Any]) -> list[list[str]]:
    by_dose, by_compound = (results["differences"][folder] for folder in ("report", "report_by_compound"))
    return [[f"trained - {name}", _estimate(by_dose[name]), _estimate(by_compound[name])] for name in by_dose]


def _shuffled_rows(results: dict[str, Any]) -> list[list[str]]:
    rows = []
    for name, tasks in results["shuffled"]["tables"].items():
        activity = tasks["activity"]
        rows.append([name, _estimate(activity["mean_map"]), _share(activity["fraction_significant"])])
    chance = next(iter(results["shuffled"]["tables"].values()))["activity"]["chance_map"]
    return [*rows, ["*expected of a random order*", f"{chance:.3f}", "0 %"]]


def _dose_rows(results: dict[str, Any]) -> list[list[str]]:
    found = {
        (row["table"], row["Metadata_Perturbation"]): f"{row['map']:.2f} ({row['p']:.3f})"
        for row in results["by_dose"]["perturbations"] + results["by_compound"]["perturbations"]
    }
    names = dict.fromkeys(perturbation for _, perturbation in found)
    return [
        [name, *(found.get((table, name), "") for table in results["tables"])]
        for name in sorted(names, key=_by_compound_and_dose)
    ]


def _by_compound_and_dose(name: str) -> tuple[str, float]:
    compound, _, dose = name.partition("@")
    return compound, float(dose.split()[0]) if dose else float("inf")


def _estimate(metric: float | dict[str, float]) -> str:
    if isinstance(metric, dict):
        return f"{metric['value']:.3f} ({metric['low']:.2f} to {metric['high']:.2f})"
    return f"{metric:.3f}"


def _share(metric: float | dict[str, float]) -> str:
    value = metric["value"] if isinstance(metric, dict) else metric
    return f"{100 * value:.0f} %"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
