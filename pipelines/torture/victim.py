"""A small plate to be damaged, and the pixels that it truly holds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

Planes = Mapping[tuple[str, int, int], tuple[str, ...]]
"""Well, site and number of the channel to TIFFs, relative to the victim's folder, whose maximum is the plane."""


@dataclass(frozen=True)
class Victim:
    """One plate to be damaged.

    Attributes:
        name: The kind of source, and of its images.
        folder: Everything that may be damaged lies in it.
        source: What is ingested, relative to the folder.
        targets: Kind of file, as `mutators.MUTATORS` knows it, to such files, relative to the folder.
        planes: See `Planes`.
        settings: Of ingest; a `platemap` is relative to the folder.
    """

    name: str
    folder: Path
    source: str
    targets: Mapping[str, tuple[str, ...]]
    planes: Planes
    settings: Mapping[str, Any] = field(default_factory=dict)

    def truth(self) -> dict[tuple[str, int, int], NDArray[Any]]:
        """Pixels of every plane, as tifffile reads them."""
        return {
            # Else tifffile would follow OME-XML to the other files of a plate.
            key: np.max([tifffile.imread(self.folder / name, is_ome=False) for name in names], axis=0)
            for key, names in self.planes.items()
        }
