"""A fitted normalisation as a file: safetensors with one JSON header, the same bytes for the same fit."""

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy import ndarray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from cellvim.atomic import write_bytes
from cellvim.errors import InputError, NotFoundError
from cellvim.profiles.fitted import FittedNormalization
from cellvim.profiles.sphere import Sphere
from cellvim.profiles.steps import HOWS, Alignment, Axes, Scaling, Step

if TYPE_CHECKING:
    from cellvim.config import Normalization

HEADER_KEY = "cellvim"
"""The only metadata key: safetensors writes several in random order."""
FORMAT, VERSION = "cellvim normalization", 1
HINT = "write it again with: cellvim normalize TABLE --out profiles.parquet --save FIT"

KINDS: Mapping[str, type[Step]] = {"sphere": Sphere, "axes": Axes, "scaling": Scaling, "alignment": Alignment}
STEPS_OF: Mapping[str, tuple[type[Step], ...]] = {
    "standardize": (Scaling,),
    "mad": (Scaling,),
    "sphere": (Sphere, Scaling),
    "tvn": (Axes, Scaling, Alignment),
    "pca": (Scaling, Axes),
}
DTYPES = {"F64", "BOOL"}


def fit_bytes(fit: FittedNormalization) -> bytes:
    """Content of the file; the same for the same fit."""
    names = {kind: name for name, kind in KINDS.items()}
    steps, arrays = [], {}
    for number, step in enumerate(fit.steps):
        described: dict[str, Any] = {"kind": names[type(step)]}
        for each in fields(step):
            value = getattr(step, each.name)
            if isinstance(value, ndarray):
                arrays[f"{number}.{each.name}"] = np.ascontiguousarray(value)
            else:
                described[each.name] = value
        steps.append(described)
    header = {
        "format": FORMAT,
        "version": VERSION,
        "method": fit.method,
        "grouping": fit.grouping,
        "feature_names": list(fit.feature_names),
        "controls": fit.controls,
        "making": dict(fit.making),
        "steps": steps,
    }
    return save(arrays, {HEADER_KEY: json.dumps(header, sort_keys=True)})


def write_fit(path: Path, fit: FittedNormalization) -> None:
    write_bytes(path, fit_bytes(fit))


def read_fit(path: Path) -> FittedNormalization:
    """Read a fitted normalisation; nothing in the file is run, and all of it is checked.

    Raises:
        NotFoundError: No such file.
        InputError: The file is no fitted normalisation, or damaged.
    """
    if not path.is_file():
        raise NotFoundError(path, expected="fitted normalisation", hint=HINT)
    try:
        with safe_open(path, framework="np") as content:
            text = (content.metadata() or {}).get(HEADER_KEY)
            names = list(content.keys())
            foreign = {content.get_slice(name).get_dtype() for name in names} - DTYPES
            arrays = {} if foreign else {name: content.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise damaged(path, f"is not a readable safetensors file: {error}") from error
    if text is None or foreign:
        raise damaged(path, "is a safetensors file of something else")
    try:
        return fit_from(json.loads(text), arrays)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise damaged(path, f"is not a fitted normalisation that can be used: {error}") from error


def damaged(path: Path, what: str) -> InputError:
    found = f"{path} {what}"
    return InputError(found, hint=HINT)


def fit_from(header: dict[str, Any], arrays: Mapping[str, ndarray]) -> FittedNormalization:
    """Put a fit together from untrusted content.

    Raises:
        ValueError: Something in it is not as `fit_bytes` writes it.
        TypeError: So is the type of something.
        KeyError: Something is missing.
    """
    require(isinstance(header, dict), "its header is no object")
    require((header["format"], header["version"]) == (FORMAT, VERSION), "its format or version is another")
    method, names = header["method"], header["feature_names"]
    require(isinstance(method, str) and method in STEPS_OF, "its method is unknown")
    require(is_list_of_text(names) and len(set(names)) == len(names) > 0, "its features are not named")
    require(
        isinstance(header["grouping"], str) and isinstance(header["making"], dict), "its header is damaged"
    )
    require(isinstance(header["controls"], int) and header["controls"] > 0, "its count of controls is none")
    steps: list[Step] = []
    width = len(names)
    for number, described in enumerate(header["steps"]):
        own = {
            name.partition(".")[2]: array for name, array in arrays.items() if name.startswith(f"{number}.")
        }
        step = step_from(dict(described), own, width)
        width = width_after(step, width)
        steps.append(step)
    fit = FittedNormalization(
        method=cast("Normalization", method),
        grouping=header["grouping"],
        feature_names=tuple(names),
        steps=tuple(steps),
        controls=header["controls"],
        making=header["making"],
    )
    kinds = (Scaling,) if fit.is_collapsed else STEPS_OF[method]
    require(width > 0 and tuple(map(type, steps)) == kinds, "its steps are not those of its method")
    return fit


def step_from(described: dict[str, Any], arrays: dict[str, ndarray], width: int) -> Step:
    """Build one step, after a look at every shape and value.

    Args:
        described: Its kind, and what is not an array.
        arrays: By name of the attribute.
        width: Number of features that come in.
    """
    kind = KINDS[described.pop("kind")]
    expected = {each.name for each in fields(kind)}
    require({*described, *arrays} == expected, f"its {kind.__name__} has other parts")
    for name, value in described.items():
        is_gain = name in ("outer", "ridge") and isinstance(value, float) and 0 <= value < float("inf")
        require(is_gain or (name == "how" and value in HOWS), f"its {name} is {value!r}")
    axes = len(arrays.get("axes", ()))
    shapes = {"axes": (axes, width), "inner": (axes,)}
    for name, array in arrays.items():
        require(array.shape == shapes.get(name, (width,)), f"its {name} has shape {array.shape}")
        require(array.dtype == (bool if name == "kept" else np.float64), f"its {name} is {array.dtype}")
        require(bool(np.isfinite(array).all()), f"its {name} is not finite")
        require(name != "spread" or bool((array > 0).all()), "its spread is not positive")
    parts: dict[str, Any] = {**described, **arrays}
    return kind(**parts)


def width_after(step: Step, width: int) -> int:
    if isinstance(step, Scaling):
        return int(step.kept.sum())
    return len(step.axes) if isinstance(step, Axes) else width


def is_list_of_text(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def require(is_true: bool, what: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not is_true:
        raise ValueError(what)
