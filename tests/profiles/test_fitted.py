"""A normalisation that is kept: the same numbers again, new plates put through it, and files not to be trusted."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load, save

from cellvim.errors import InputError, NotFoundError
from cellvim.profiles import (
    FittedNormalization,
    Profiles,
    fit_bytes,
    fit_normalization,
    normalize,
    read_fit,
    write_fit,
)

MakeProfiles = Callable[..., Profiles]

METHODS = ("standardize", "mad", "sphere", "tvn", "pca")


@pytest.fixture(scope="module")
def screen(make_profiles: MakeProfiles) -> Profiles:
    """Three plates of 24 wells, 10 features, 8 controls each."""
    rng = np.random.default_rng(3)
    features = rng.normal(size=(72, 10)) @ rng.normal(size=(10, 10)) + np.repeat(
        rng.normal(size=(3, 10)), 24, 0
    )
    control = (["negcon"] * 8 + [None] * 16) * 3
    wells = [f"{row}{column:02}" for row in "AB" for column in range(1, 13)]
    plates = [f"P{number}" for number in (1, 2, 3) for _ in range(24)]
    return make_profiles(features, Plate=plates, Well=wells * 3, ControlType=control)


def plates_of(profiles: Profiles, *names: str) -> Profiles:
    return profiles.only(np.flatnonzero(profiles.metadata["Metadata_Plate"].is_in(names).to_numpy()))


@pytest.mark.parametrize("method", METHODS)
def test_what_is_saved_and_read_back_gives_the_same_bytes(
    screen: Profiles, method: str, tmp_path: Path
) -> None:
    fit = fit_normalization(screen, method)
    write_fit(tmp_path / "a.fit", fit)
    write_fit(tmp_path / "b.fit", fit_normalization(screen, method))
    assert (tmp_path / "a.fit").read_bytes() == (tmp_path / "b.fit").read_bytes()

    again = read_fit(tmp_path / "a.fit")
    assert fit_bytes(again) == fit_bytes(fit)
    before, after = fit.apply(screen), again.apply(screen)
    assert (
        after.features.tobytes() == before.features.tobytes() == normalize(screen, method).features.tobytes()
    )
    assert after.feature_names == before.feature_names
    assert after.warnings == before.warnings


@pytest.mark.parametrize("method", METHODS)
def test_a_plate_of_the_fit_projected_by_itself_has_the_values_it_had(screen: Profiles, method: str) -> None:
    projected = fit_normalization(screen, method).apply(plates_of(screen, "P2"))
    np.testing.assert_array_equal(projected.features, plates_of(normalize(screen, method), "P2").features)


@pytest.mark.parametrize("method", METHODS)
def test_a_new_plate_changes_nothing_of_what_was_fitted(screen: Profiles, method: str) -> None:
    """P3 is put through a fit of P1 and P2; by its own controls alone it would come out elsewhere."""
    fit = fit_normalization(plates_of(screen, "P1", "P2"), method)
    new = fit.apply(plates_of(screen, "P3"))
    together = fit.apply(screen)
    np.testing.assert_array_equal(new.features, plates_of(together, "P3").features)
    alone = normalize(plates_of(screen, "P3"), method)
    is_local = method in ("standardize", "mad")
    is_same = new.features.shape == alone.features.shape and np.allclose(new.features, alone.features)
    assert is_same == is_local


def test_features_are_found_by_name_whatever_their_order(screen: Profiles) -> None:
    fit = fit_normalization(screen, "sphere")
    order = np.arange(10)[::-1]
    turned = replace(
        screen,
        features=np.ascontiguousarray(screen.features[:, order]),
        feature_names=tuple(screen.feature_names[index] for index in order),
    )
    np.testing.assert_array_equal(fit.apply(turned).features, fit.apply(screen).features)


def test_a_table_that_does_not_fit_is_refused(screen: Profiles) -> None:
    fit = fit_normalization(screen, "sphere")
    narrow = replace(screen, features=screen.features[:, 1:], feature_names=screen.feature_names[1:])
    with pytest.raises(InputError, match=r"lacks 1 feature.*emb_0000"):
        fit.apply(narrow)
    ours = replace(screen, provenance={"model_sha256": "a", "level": "well"})
    with pytest.raises(InputError, match="made differently"):
        fit.apply(ours)
    other = replace(screen, provenance={"model_sha256": "b", "level": "well"})
    with pytest.raises(InputError, match="model_sha256 is a in one and b in the other"):
        fit_normalization(ours, "sphere").apply(other)


@pytest.mark.parametrize(("controls", "words"), [(0, "no negative controls"), (1, "fewer than 2 .* P9")])
def test_a_new_plate_needs_two_controls_of_its_own(
    screen: Profiles, make_profiles: MakeProfiles, controls: int, words: str
) -> None:
    fit = fit_normalization(screen, "sphere")
    values = np.random.default_rng(1).normal(size=(4, 10))
    marks = ["negcon"] * controls + [None] * (4 - controls)
    with pytest.raises(InputError, match=words):
        fit.apply(make_profiles(values, Plate=["P9"] * 4, ControlType=marks))
    enough = make_profiles(values, Plate=["P9"] * 4, ControlType=["negcon"] * 2 + [None] * 2)
    assert np.isfinite(fit.apply(enough).features).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_feature_that_is_flat_on_a_new_plate_is_zero_there_and_said_so(
    screen: Profiles, method: str
) -> None:
    fit = fit_normalization(plates_of(screen, "P1", "P2"), method)
    features = plates_of(screen, "P3").features.copy()
    features[:8] = features[0]
    new = fit.apply(replace(plates_of(screen, "P3"), features=features))
    assert np.isfinite(new.features).all()
    assert not new.features.any()
    assert "do not vary among their own controls" in new.warnings[-1]
    assert new.feature_names == fit.output_names


# Files that are not to be trusted


def header_of(fit: FittedNormalization) -> dict[str, object]:
    content = fit_bytes(fit)
    length = int.from_bytes(content[:8], "little")
    return dict(json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["cellvim"]))


def rewritten(fit: FittedNormalization, **changes: object) -> bytes:
    return save(load(fit_bytes(fit)), {"cellvim": json.dumps(header_of(fit) | changes)})


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "other"},
        {"version": 2},
        {"method": "none"},
        {"method": ["sphere"]},
        {"method": "tvn"},
        {"feature_names": ["a", "b"]},
        {"feature_names": ["emb_0000"] * 10},
        {"feature_names": "emb"},
        {"feature_names": []},
        {"grouping": 3},
        {"controls": -1},
        {"making": []},
        {"steps": []},
        {"steps": [{"kind": "os.system"}]},
        {"steps": [{"kind": "sphere"}]},
        {"steps": [{"kind": "sphere", "outer": float("nan")}, {"kind": "scaling", "how": "standardize"}]},
        {"steps": [{"kind": "sphere", "outer": 1.0}, {"kind": "scaling", "how": "eval"}]},
        {"steps": [{"kind": "scaling", "how": "standardize"}, {"kind": "sphere", "outer": 1.0}]},
        {"steps": 7},
    ],
)
def test_a_header_that_is_not_ours_is_refused(
    screen: Profiles, tmp_path: Path, changes: dict[str, object]
) -> None:
    path = tmp_path / "hostile.fit"
    path.write_bytes(rewritten(fit_normalization(screen, "sphere"), **changes))
    with pytest.raises(InputError, match="not a fitted normalisation") as caught:
        read_fit(path)
    assert "--save" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("0.axes", np.zeros((3, 9))),
        ("0.axes", np.zeros(10)),
        ("0.centre", np.zeros(11)),
        ("0.centre", np.full(10, np.inf)),
        ("0.spread", np.zeros(10)),
        ("0.inner", np.zeros(3)),
        ("0.centre", np.zeros(10, np.float32)),
        ("1.kept", np.zeros(10, bool)),
        ("1.kept", np.ones(10)),
        ("0.more", np.ones(10)),
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(
    screen: Profiles, tmp_path: Path, name: str, value: np.ndarray
) -> None:
    fit = fit_normalization(screen, "sphere")
    path = tmp_path / "hostile.fit"
    path.write_bytes(save(load(fit_bytes(fit)) | {name: value}, {"cellvim": json.dumps(header_of(fit))}))
    with pytest.raises(InputError):
        read_fit(path)


@pytest.mark.parametrize("text", ["{", "[]", "null", "[" * 100_000, '"x"', "{}"])
def test_a_header_that_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "hostile.fit"
    path.write_bytes(save({"x": np.zeros(2)}, {"cellvim": text}))
    with pytest.raises(InputError):
        read_fit(path)


def test_other_files_are_refused(screen: Profiles, tmp_path: Path) -> None:
    path = tmp_path / "x.fit"
    with pytest.raises(NotFoundError):
        read_fit(path)
    whole = fit_bytes(fit_normalization(screen, "tvn"))
    for content in (b"", b"PK\x03\x04", b"\xff" * 100, whole[:-8], whole[:200], save({"x": np.zeros(2)})):
        path.write_bytes(content)
        with pytest.raises(InputError):
            read_fit(path)


def test_a_collapsed_fit_is_kept_as_well(screen: Profiles, tmp_path: Path) -> None:
    flat = replace(screen, features=np.full((72, 10), 0.5, np.float32))
    write_fit(tmp_path / "x.fit", fit_normalization(flat, "tvn"))
    result = read_fit(tmp_path / "x.fit").apply(screen)
    assert "only centred" in result.warnings[-1]
    own = screen.features[:24].astype(np.float64)
    np.testing.assert_allclose(result.features[:24], own - own[:8].mean(0), rtol=1e-5, atol=1e-5)


CHILD = """
from pathlib import Path
import numpy as np
import polars as pl
from cellvim.profiles import Profiles, normalize

plates, wells = 100, [f"{row}{column:02}" for row in "ABCDEFGHIJKLMNOP" for column in range(1, 25)]
features = np.random.default_rng(0).standard_normal((plates * 384, 384), dtype=np.float32)
metadata = pl.DataFrame({
    "Metadata_Plate": [f"P{plate:03}" for plate in range(plates) for _ in wells],
    "Metadata_Well": wells * plates,
    "Metadata_ControlType": ["negcon" if index % 6 == 0 else None for index in range(384)] * plates,
})
names = tuple(f"x{index}" for index in range(384))
table = Profiles(metadata, features, names, {}, Path("x"), "x")

def peak_kib():
    # Not getrusage: its peak is inherited from the process that started this one.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

before = peak_kib()
normalize(table, "sphere")
print(before, peak_kib())
"""


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="only Linux tells a process its peak memory"
)
def test_sphering_100_plates_needs_little_more_than_the_tables_themselves() -> None:
    """The table takes 59 MB, and the result as much; all wells in double precision at once would take 118 MB more."""
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert after < 1_000_000
    assert after - before < 59_000 + 80_000


def test_metadata_stay_as_they_are(screen: Profiles) -> None:
    assert fit_normalization(screen, "pca").apply(screen).metadata.equals(screen.metadata)
    assert isinstance(screen.metadata, pl.DataFrame)
