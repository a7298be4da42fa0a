"""Let three foreign readers of OME-Zarr look at a plate. Run by the interpreter of `.venv-judges`.

    python judge.py PLATE.ome.zarr...

Prints one JSON object per plate: what each judge saw. Any exception is a verdict.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import ngff_zarr
import numpy as np
from iohub import open_ome_zarr


def main() -> None:
    for argument in sys.argv[1:]:
        plate = Path(argument)
        validate_with_ome_zarr_models(plate)
        groups = validate_with_ngff_zarr(plate)
        sys.stdout.write(json.dumps({"plate": str(plate), "groups": groups, **open_with_iohub(plate)}) + "\n")


def validate_with_ome_zarr_models(plate: Path) -> None:
    tool = Path(sys.executable).with_name("ome-zarr-models")
    subprocess.run([tool, "validate", str(plate)], check=True, stdout=sys.stderr)


def validate_with_ngff_zarr(plate: Path) -> int:
    """Validate the metadata of every group; return how many have some."""
    count = 0
    for path in sorted(plate.rglob("zarr.json")):
        attributes = json.loads(path.read_text())["attributes"]
        for model, key in (("plate", "plate"), ("well", "well"), ("image", "multiscales")):
            if key in attributes.get("ome", {}):
                ngff_zarr.validate(attributes, version="0.5", model=model)
                count += 1
    return count


def open_with_iohub(plate: Path) -> dict[str, object]:
    """Report what iohub finds, with a checksum of all pixels of each field."""
    with open_ome_zarr(plate, mode="r") as opened:
        positions = {
            name: {
                "scale": list(position.scale),
                "sha256": hashlib.sha256(np.ascontiguousarray(position["0"][:]).tobytes()).hexdigest(),
            }
            for name, position in opened.positions()
        }
        return {"channels": list(opened.channel_names), "positions": positions}


if __name__ == "__main__":
    main()
