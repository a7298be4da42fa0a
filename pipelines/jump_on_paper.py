"""A screen of JUMP's size on paper, from measured rates: `python -m pipelines.jump_on_paper` writes docs/scale.md.

Rates stand in `jump_rates.csv`, each with the line of the page that it was measured for. Nothing is measured here.
"""

import csv
import math
from dataclasses import dataclass
from pathlib import Path

from cellvim.atomic import write_text
from cellvim.config import PRESETS
from cellvim.embed.tiling import tiles

ROOT = Path(__file__).parents[1]
RATES = Path(__file__).with_name("jump_rates.csv")
PAGE = ROOT / "docs/scale.md"

CORES_MEASURED = 2
TILE_PX = 224
BYTES_PER_PIXEL = 2
FEATURE_BYTES = 4
WEEKEND_HOURS = 60
EMBEDDED = ("nano", "tiny", "small")
MEASURED_PLATES = (30, 100)


@dataclass(frozen=True)
class Screen:
    """How much there is of everything."""

    plates: int = 2500
    rows: int = 16
    wells: int = 384
    fields: int = 9
    channels: int = 5
    side_px: int = 1080

    @property
    def planes(self) -> int:
        """Of one plate."""
        return self.wells * self.fields * self.channels

    @property
    def plate_mb(self) -> float:
        """Pixels of one plate."""
        return self.planes * self.side_px**2 * BYTES_PER_PIXEL / 1e6

    @property
    def plate_tiles(self) -> int:
        return self.wells * self.fields * sum(1 for _ in tiles(self.side_px, self.side_px, TILE_PX))

    @property
    def all_wells(self) -> int:
        return self.plates * self.wells


@dataclass(frozen=True)
class Rate:
    """A measured number, and where it stands."""

    value: float
    unit: str
    source: str
    quote: str


def read_rates() -> dict[str, Rate]:
    """Read the table of rates by their names."""
    with RATES.open(encoding="utf-8", newline="") as file:
        return {row["name"]: _rate(row) for row in csv.DictReader(file)}


def plate_files(*, rows: int, wells: int, fields: int) -> int:
    """Count the files that ingest writes of a plate with a plate map.

    Args:
        rows: Rows of the plate with an imaged well.
        wells: Imaged wells.
        fields: Fields of all of them together: a shard, two descriptions, a record and a histogram each.
    """
    return 5 * fields + wells + rows + 11


def page() -> str:
    """Write the page down."""
    rates, screen = read_rates(), Screen()
    parts = [
        _head(screen),
        _storage(rates),
        _computing(rates),
        _evaluating(rates, screen),
        _jobs(rates),
        _rates(rates),
    ]
    return "\n\n".join(parts) + "\n"


def core_hours(screen: Screen, tiles_per_second: float) -> float:
    """Core-hours for the tiles of one plate, by a rate of `CORES_MEASURED` cores at five channels."""
    scaled = tiles_per_second * Screen().channels / screen.channels
    return screen.plate_tiles / scaled * CORES_MEASURED / 3600


def grown(rates: dict[str, Rate], task: str, plates: int) -> tuple[float, float, float]:
    """Carry a task from the two largest measured tables on, at least in proportion: power, seconds, MiB."""
    few, many = MEASURED_PLATES
    power = math.log(rates[f"{task}_{many}"].value / rates[f"{task}_{few}"].value) / math.log(many / few)
    seconds = rates[f"{task}_{many}"].value * (plates / many) ** max(power, 1)
    memory_few, memory_many = rates[f"{task}_memory_{few}"].value, rates[f"{task}_memory_{many}"].value
    memory = memory_many + (memory_many - memory_few) / (many - few) * (plates - many)
    return power, seconds, memory


def _rate(row: dict[str, str]) -> Rate:
    return Rate(float(row["value"]), row["unit"], row["source"], row["quote"])


def _head(screen: Screen) -> str:
    return f"""# JUMP on paper

What would a screen of the size of JUMP take: {screen.plates:,} plates of {screen.wells} wells, {screen.fields} fields of {screen.side_px} x {screen.side_px} pixels, 16 bits,
5 channels, or 8 with the brightfield planes? **Nothing on this page was run at that size.** `python -m pipelines.jump_on_paper`
computes it from rates that were measured on two cores of an AMD EPYC with files in the page cache; they stand at the end, each
with the line that it comes from. A disk or a network that is slower than 100 MB/s per core will be what decides instead.
No GPU was at hand: GPU-hours are not measured, and not guessed."""


def _storage(rates: dict[str, Rate]) -> str:
    share, source = (
        rates["stored"].value / rates["pixels"].value,
        rates["tiffs"].value / rates["pixels"].value,
    )
    lines = ["## Bytes and files", "", "| | 5 channels | 8 channels |", "|---|---|---|"]
    both = [Screen(channels=channels) for channels in (5, 8)]
    files = [plate_files(rows=each.rows, wells=each.wells, fields=each.wells * each.fields) for each in both]
    rows = {
        "images (one TIFF per plane)": [f"{each.planes * each.plates / 1e6:.1f} million" for each in both],
        "pixels of a plate": [f"{each.plate_mb / 1e3:.1f} GB" for each in both],
        "pixels of all": [f"{each.plate_mb * each.plates / 1e6:.0f} TB" for each in both],
        f"as LZW TIFFs ({source:.2f} of that)": [
            f"{each.plate_mb * each.plates * source / 1e6:.0f} TB" for each in both
        ],
        f"as OME-Zarr, zstd ({share:.2f} of that)": [
            f"{each.plate_mb * each.plates * share / 1e6:.0f} TB" for each in both
        ],
        "shards, one per field": [
            f"{each.wells * each.fields * each.plates / 1e6:.1f} million" for each in both
        ],
        "files of a plate, records and metadata included": [f"{count:,}" for count in files],
        "files of all": [
            f"{count * each.plates / 1e6:.0f} million" for each, count in zip(both, files, strict=True)
        ],
        "table of wells, nano, before compression": [
            f"{each.all_wells * PRESETS['nano']['width'] * each.channels * FEATURE_BYTES / 1e9:.1f} GB"
            for each in both
        ],
    }
    lines += [f"| {name} | {' | '.join(values)} |" for name, values in rows.items()]
    lines += [
        "",
        "How much smaller pixels become depends on their noise; the measured plate has that of a camera.",
    ]
    return "\n".join(lines)


def _computing(rates: dict[str, Rate]) -> str:
    one = Screen()
    intro = (
        f"A field is {one.plate_tiles // one.wells // one.fields} tiles of {TILE_PX} px, a plate {one.plate_tiles:,}. "
        "Rates of embedding are of five channels; for\neight they are divided by 8/5, as tokens are, which was not measured."
    )
    columns = (
        "stage", "a plate, 5 channels", "all, 5 channels", "all, 8 channels",
        f"cores for a weekend of {WEEKEND_HOURS} h, 5 channels", "on GPUs",
    )  # fmt: skip
    lines = ["## Core-hours", "", intro, "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    five, eight = Screen(), Screen(channels=8)
    hours = {"ingest": [each.plate_mb / rates["ingest"].value / 3600 for each in (five, eight)]}
    hours |= {
        f"embed, {name}": [core_hours(each, rates[name].value) for each in (five, eight)] for name in EMBEDDED
    }
    for name, (plate, wide) in hours.items():
        total = plate * five.plates
        gpu = "does not use one" if name == "ingest" else "not measured"
        cores = math.ceil(total / WEEKEND_HOURS)
        lines.append(
            f"| {name} | {plate:.2f} h | {total:,.0f} h | {wide * five.plates:,.0f} h | {cores:,} | {gpu} |"
        )
    lines.append("| embed, base, large, huge | not measured | | | | not measured |")
    crops = rates["nano_training"].value
    hours_of_training = 100_000 * 256 / crops * CORES_MEASURED / 3600
    lines += [
        "",
        f"Pretraining grows with its steps, not with the screen: 100,000 steps of 256 crops, nano, would be {hours_of_training:,.0f} core-hours at",
        f"the {crops:g} crops a second of two cores in plain torch; that is what GPUs are for, and not measured there.",
        f"Memory: ingest {rates['ingest_memory'].value:.0f} MiB with two workers, embed {rates['embed_memory'].value:.0f} MiB, whatever the number of plates.",
    ]
    return "\n".join(lines)


def _evaluating(rates: dict[str, Rate], screen: Screen) -> str:
    few, many = MEASURED_PLATES
    lines = [
        "## Evaluate",
        "",
        f"One process reads all {screen.all_wells:,} wells. Times are carried on from {few} and {many} plates of 384 features by the power of plates",
        f"that lies between them, but at least in proportion, memory by a straight line: {screen.plates / many:.0f} times beyond what was measured, so take them as orders of magnitude.",
        "",
        f"| task | at {many} plates | power | at {screen.plates:,} plates | memory |",
        "|---|---|---|---|---|",
    ]
    for task, title in (
        ("activity", "activity"),
        ("retrieval", "replicate retrieval"),
        ("sphering", "sphering, one fit"),
    ):
        power, seconds, memory = grown(rates, task, screen.plates)
        spent = f"{seconds / 3600:.1f} h" if seconds > 3600 else f"{seconds / 60:.1f} min"
        measured = rates[f"{task}_{many}"].value
        lines.append(f"| {title} | {measured:g} s | {power:.2f} | {spent} | {memory / 1024:.1f} GiB |")
    lines += [
        "",
        "Replicate retrieval compares every well with every other, and grows with their square. For a whole screen, name the tasks",
        "(`--tasks activity,consistency`), or evaluate batches of plates by themselves.",
    ]
    return "\n".join(lines)


def _jobs(rates: dict[str, Rate]) -> str:
    screen = Screen()
    minutes = {
        "ingest": screen.plate_mb / rates["ingest"].value / CORES_MEASURED / 60,
        "embed": core_hours(screen, rates["nano"].value) / CORES_MEASURED * 60,
    }
    lines = [
        "## Slurm jobs",
        "",
        "A study makes one job per batch of plates for ingest, one for embed, one for pretraining and one for the report. With two",
        "cores per job and a nano model:",
        "",
        "| `plates_per_job` | jobs | an ingest job | an embed job |",
        "|---|---|---|---|",
    ]
    for size in (1, 4, 10, 25):
        jobs = 2 * math.ceil(screen.plates / size) + 2
        lines.append(
            f"| {size} | {jobs:,} | {minutes['ingest'] * size:.0f} min | {minutes['embed'] * size / 60:.1f} h |"
        )
    lines += ["", "A plate is what a failure costs at most; within one, ingest goes on field by field."]
    return "\n".join(lines)


def _rates(rates: dict[str, Rate]) -> str:
    lines = ["## The rates", "", "| rate | value | measured in |", "|---|---|---|"]
    for name, rate in rates.items():
        source = Path(rate.source).name
        lines.append(f"| {name.replace('_', ' ')} | {rate.value:g} {rate.unit} | [{source}]({source}) |")
    return "\n".join(lines)


if __name__ == "__main__":
    write_text(PAGE, page())
