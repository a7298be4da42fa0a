"""The study file that `cellvim study init` writes: every key is there, with what it is for."""

from pathlib import Path
from string import Template

import yaml

from cellvim.atomic import write_text
from cellvim.errors import OutputExistsError

_TEMPLATE = Template("""\
# A study: many plates, one report.
#   cellvim study plan $file      what will be run
#   cellvim study run $file       run it; the same command resumes
#   cellvim study status $file    what is done, what failed and why
# Paths start from the folder of this file. Check a plate first: cellvim ingest FOLDER --out plates --dry-run

# Title of the report.
name: $name

# Folder for everything that is made: plates/, model/, profiles/, report/.
out: results

# Plates, one folder of images (or one load_data.csv) each: a pattern ...
plates: $plates
# ... or a list:
# plates:
#   - {name: BR00116991, images: images/BR00116991-Measurement1, platemap: maps/compounds.csv}
# ... or a CSV file with the columns name, images and platemap, one row per plate:
# plates: plates.csv

# What is in the wells: one map for all plates, or a table of barcodes with the map of each. Leave it out if the list
# of plates names them.
$platemap

# Flags of `cellvim ingest` (see `cellvim ingest --help`), with _ for the dashes inside; true stands for a flag alone.
ingest:
  on_missing: skip-field        # a field that lacks a plane is left out and named, instead of stopping its plate
  # channels: 1=DNA,2=ER,3=RNA,4=AGP,5=Mito
  # pattern: "{plate}/{well}_{field}_{channel}.tif"

# The encoder is trained on the plates, or ...
pretrain:
  preset: nano                  # nano, tiny, small or base
  steps: 1000
  batch_size: 32
  optimizer:
    base_learning_rate: 1.5e-3  # for batches of dozens; 1.5e-4 for hundreds
# pretrain_plates: [BR0011*]    # on these only; all if absent
# ... one that is there already is used:
# model: path/to/run

# Flags of `cellvim embed`.
embed: {}

# Flags of `cellvim evaluate`.
evaluate:
  normalize: sphere
  # control: Metadata_broad_sample=DMSO
  # label: Metadata_moa
  # tasks: activity,distinctiveness,replicate_retrieval,consistency

# How steps become jobs; none of it changes a result (but for the last bits of a model: cpus and gpus). What is absent is
# as written here, and every further attempt asks for twice the memory and time, up to the most that you name.
jobs:
  plates_per_job: 1             # small plates: several per cluster job
  attempts: 3                   # then the plate is given up, named, and left out of the report
  # most_memory_mb: 256000      # what the largest node has; no limit if absent
  # most_minutes: 2880          # the partition's time limit: what asks for more is never started
  # partition: main             # Slurm
  # account: lab
  ingest: {cpus: 2, memory_mb: 2000, minutes: 120}
  pretrain: {cpus: 4, memory_mb: 8000, minutes: 2880, gpus: 0}
  embed: {cpus: 2, memory_mb: 4000, minutes: 240, gpus: 0}
  evaluate: {cpus: 2, memory_mb: 8000, minutes: 240}
""")


def write_study_file(file: Path, *, plates: str = "images/*", platemap: str | None = None) -> None:
    """Write a commented study file.

    Args:
        file: Where to.
        plates: Pattern of the folders of images, or a table of plates.
        platemap: Plate map of all plates.

    Raises:
        OutputExistsError: There is a file already; a study file is never replaced.
    """
    if file.exists():
        raise OutputExistsError(file, why="is not replaced", hint="choose another name, or edit this file")
    line = f"platemap: {_as_yaml(platemap)}" if platemap else "# platemap: platemap.csv"
    name = file.absolute().parent.name or "study"
    content = _TEMPLATE.substitute(
        file=file.name, name=_as_yaml(name), plates=_as_yaml(plates), platemap=line
    )
    write_text(file, content)


def _as_yaml(text: str) -> str:
    return (
        yaml.safe_dump(text, default_flow_style=True, allow_unicode=True, width=10_000)
        .removesuffix("...\n")
        .strip()
    )
