"""A plate to torture: real MetaXpress images, three channels and two z planes, copied to as many wells as it takes."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tifffile

ORIGINAL = "imagexpress/ImageXpress_exported/9987_Plate_3434"
"""Below the folder of real plates: wells B02 and B03, two sites, ZStep_1 and 2, waves 1 to 3, uncompressed."""
NAME = "9987_Plate_3434"


def copy_screen(data: Path, folder: Path, *, wells: int) -> Path:
    """Copy the real plate to `wells` wells of two sites; no two of them have the same pixels.

    Headers stay byte for byte what MetaXpress wrote. Pixels are shifted by a number of places for each well, so that
    a field that ended up in another's place would be seen.
    """
    for number in range(wells):
        well = f"{chr(ord('A') + number // 24)}{number % 24 + 1:02d}"
        for path in sorted((data / ORIGINAL).glob("TimePoint_1/ZStep_[12]/9987_B02_*.TIF")):
            copy = folder / NAME / path.relative_to(data / ORIGINAL)
            copy = copy.with_name(copy.name.replace("B02", well))
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(_shifted(path, number))
    (folder / NAME / "9987.HTD").write_bytes((data / ORIGINAL / "9987.HTD").read_bytes())
    return folder / NAME


def ingest_command(source: Path, out: Path, *, workers: int = 2) -> list[str]:
    """The command line as a user types it."""
    command = [sys.executable, "-m", "cellvim", "--quiet", "ingest", str(source), "--out", str(out)]
    return [*command, "--workers", str(workers)]


def output_files(out: Path) -> Mapping[str, Path]:
    """Every file of a store and its companion, temporary ones too, but for `run.json`, which tells the time."""
    # Unlike rglob, walk takes no offence at folders that vanish while a command is at work.
    paths = (Path(folder, name) for folder, _, names in os.walk(out) for name in names)
    return {path.relative_to(out).as_posix(): path for path in paths if path.name != "run.json"}


def _shifted(path: Path, places: int) -> bytes:
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        start, size = page.dataoffsets[0], sum(page.databytecounts)
    pixels = np.frombuffer(content, np.uint16, size // 2, start).copy()
    content[start : start + size] = np.roll(pixels, 97 * places).tobytes()
    return bytes(content)
