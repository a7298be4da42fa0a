"""Label images: which pixels of a field belong to which object, as another program found them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from jaxtyping import Int, Integer
from numpy import ndarray
from scipy import ndimage

from cellvim.errors import InputError, NotFoundError
from cellvim.provenance import sha256_of_file, sha256_of_json
from cellvim.store import FieldKey, parse_well

NAMING = "name them PLATE/WELL_SITE.tif, or WELL_SITE.tif for a single plate, such as B03_1.tif"
_NAME = re.compile(r"([A-Za-z]{1,2}[0-9]{1,3})_[sf]?0*([0-9]{1,6})\.tiff?", re.IGNORECASE)
_SUFFIXES = (".tif", ".tiff")


@dataclass(frozen=True)
class LabelImages:
    """Label images of one plate.

    Args:
        folder: Where they lie.
        paths: One TIFF per field.
    """

    folder: Path
    paths: dict[FieldKey, Path]

    @classmethod
    def of_plate(cls, masks: Path, plate_name: str) -> "LabelImages":
        """Find the label images of a plate: in the folder of its name, else directly in `masks`.

        Raises:
            NotFoundError: No such folder.
            InputError: No label image there, or two of one field.
        """
        if not masks.is_dir():
            raise NotFoundError(masks, expected="folder of label images", hint=NAMING)
        own = masks / plate_name
        folder = own if own.is_dir() else masks
        paths: dict[FieldKey, Path] = {}
        for path in sorted(folder.iterdir()):
            key = _field_of(path)
            if key is not None and paths.setdefault(key, path) != path:
                found = f"two label images of field {key}: {paths[key].name} and {path.name}"
                raise InputError(found, hint="keep one of them")
        if not paths:
            others = [path.name for path in sorted(folder.iterdir()) if path.suffix.lower() in _SUFFIXES]
            there = f"such as {others[0]}" if others else "no TIFF at all"
            found = f"no label image of plate {plate_name} in {folder}: {there}"
            raise InputError(found, hint=NAMING)
        return cls(folder, paths)

    def read(self, field: FieldKey, shape: tuple[int, int]) -> Int[ndarray, "y x"]:
        """Read the objects of a field: 0 where there is none, else the object's number.

        An image whose only value besides 0 fills several separate parts is a mask of what is an object and what is
        not, as many programs write with 255: each part then is an object, numbered row by row from 1.

        Args:
            field: Which.
            shape: Height and width of the field's image.

        Raises:
            InputError: No label image of this field, one of another size, or one that holds no labels.
        """
        path = self.paths.get(field)
        if path is None:
            found = f"no label image {field.well}_{field.site}.tif"
            raise InputError(found, hint=NAMING)
        labels = _checked(_read_tiff(path, shape), path.name, shape)
        if (labels[labels > 0] == labels.max()).all():
            parts, count = ndimage.label(labels, structure=np.ones((3, 3)))
            labels = parts if count > 1 else labels
        return labels.astype(np.int64)


def masks_sha256(masks: Path, plate_names: Sequence[str]) -> str:
    """Hash of the label images of some plates: which field, and what is in the file.

    Raises:
        NotFoundError: No such folder.
        InputError: A plate has no label images, or several plates would share those of one.
    """
    found = {name: LabelImages.of_plate(masks, name) for name in plate_names}
    sharing = [name for name, images in found.items() if images.folder == masks]
    if sharing and len(found) > 1:
        message = (
            f"{masks} holds no folder {sharing[0]}, and its own label images cannot be of {len(found)} plates"
        )
        raise InputError(message, hint="put the label images of each plate into a folder of the plate's name")
    return sha256_of_json(
        {
            name: {str(field): sha256_of_file(path) for field, path in sorted(images.paths.items())}
            for name, images in found.items()
        }
    )


def _field_of(path: Path) -> FieldKey | None:
    match = _NAME.fullmatch(path.name)
    if match is None:
        return None
    try:
        return FieldKey(parse_well(match[1]), int(match[2]))
    except InputError:
        return None


def _read_tiff(path: Path, shape: tuple[int, int]) -> ndarray:
    try:
        with tifffile.TiffFile(path) as file:
            series = file.series[0]
            # A header may claim any size: what cannot be of this field is not decoded.
            fits = series.size == shape[0] * shape[1]
            image, sides = series.asarray() if fits else None, series.shape
    except (OSError, ValueError, IndexError) as error:
        found = f"label image {path.name} cannot be read: {str(error).splitlines()[0]}"
        raise InputError(found, hint="write it again as a TIFF") from error
    if image is None:
        raise _wrong_size(sides, path.name, shape)
    return np.asarray(image)


def _checked(image: ndarray, name: str, shape: tuple[int, int]) -> Integer[ndarray, "y x"]:
    plane = (
        image.reshape(image.shape[-2:])
        if image.ndim > 2 and image.size == np.prod(image.shape[-2:])
        else image
    )
    if plane.shape != shape:
        raise _wrong_size(plane.shape, name, shape)
    if plane.dtype.kind == "b":
        return plane.astype(np.uint8)
    if plane.dtype.kind not in "iu":
        found = f"label image {name} holds {plane.dtype} numbers, not whole ones"
        raise InputError(found, hint="write labels as integers, 0 where there is no object")
    if plane.dtype.kind == "i" and plane.min() < 0:
        found = f"label image {name} holds negative labels"
        raise InputError(found, hint="write 0 where there is no object, and objects as 1, 2, 3 and so on")
    if plane.dtype == np.uint64 and plane.max() > np.iinfo(np.int64).max:
        found = f"label image {name} holds labels beyond 2**63"
        raise InputError(found, hint="write objects as 1, 2, 3 and so on")
    return plane


def _wrong_size(sides: Sequence[int], name: str, shape: tuple[int, int]) -> InputError:
    size, wanted = (" x ".join(map(str, sides)) for sides in (sides, shape))
    found = f"label image {name} is {size} px, its field {wanted}"
    return InputError(found, hint="label images have the height and width of their field, and one plane")
