"""Uneven illumination: a known vignette is learned and divided out, cells stay, and every way of reading agrees."""

import hashlib
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellvim.config import IngestSettings
from cellvim.errors import InputError, OutputExistsError, UsageError
from cellvim.ingest import illumination, ingest_plates
from cellvim.ingest.planes import FieldPlan
from cellvim.store import FieldKey, PlateReader, verify_plate
from cellvim.store.illumination import flatten

MakeSettings = Callable[..., IngestSettings]
HashTree = Callable[[Path], dict[str, bytes]]

SHAPE = (120, 160)
WELLS = ("A01", "A02", "B01", "B02")
SITES = 8
# 32 fields of cells are uneven by a few percent, however lit.
FLAT_WITHIN = 0.02


def vignette() -> np.ndarray:
    """Bright in the middle, 40 % darker in the corners, brighter to the right; 1 on average."""
    y, x = np.mgrid[-1 : 1 : SHAPE[0] * 1j, -1 : 1 : SHAPE[1] * 1j]
    light = 1 - 0.2 * (x**2 + y**2) + 0.08 * x
    return light / light.mean()


def scene(seed: int) -> np.ndarray:
    """Many small cells on a background, before any light falls on them."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    picture = np.full(SHAPE, 1000.0)
    for _ in range(30):
        top, left, radius = (
            generator.uniform(0, SHAPE[0]),
            generator.uniform(0, SHAPE[1]),
            generator.uniform(2, 5),
        )
        picture += ((y - top) ** 2 + (x - left) ** 2 < radius**2) * generator.uniform(200, 600)
    return picture


@pytest.fixture
def write_plate(tmp_path: Path) -> Callable[..., Path]:
    """Write 32 fields of one channel under a light: `write_plate(vignette())`."""

    def write(light: np.ndarray, channels: int = 1) -> Path:
        folder = tmp_path / "images"
        folder.mkdir(exist_ok=True)
        for number, (well, site) in enumerate((well, site) for well in WELLS for site in range(1, SITES + 1)):
            for channel in range(1, channels + 1):
                plane = np.random.default_rng(number).poisson(scene(number * 7 + channel) * light)
                tifffile.imwrite(folder / f"P_{well}_s{site}_w{channel}.tif", plane.astype(np.uint16))
        return folder

    return write


def read(out: Path, **how: bool) -> dict[FieldKey, np.ndarray]:
    reader = PlateReader(out / "P.ome.zarr")
    return {key: reader.read_field(key, **how) for key in reader.fields}


def flat_of(out: Path) -> np.ndarray:
    return np.load(out / "P.cellvim" / "illumination.npy", allow_pickle=False)


def test_a_known_vignette_comes_back_flat_and_cells_stay(
    write_plate: Callable[..., Path], make_settings: MakeSettings, tmp_path: Path
) -> None:
    write_plate(vignette())
    ingest_plates(make_settings(illumination="baked"))
    flat = flat_of(tmp_path / "out")
    assert flat.shape == (1, *SHAPE)
    assert flat.mean() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(flat[0], vignette(), rtol=FLAT_WITHIN)
    assert np.abs(flat[0] / vignette() - 1).mean() < FLAT_WITHIN / 3
    for number, (_, pixels) in enumerate(sorted(read(tmp_path / "out").items())):
        truth = scene(number * 7 + 1)
        smooth = [image.reshape(12, 10, 16, 10).mean(axis=(1, 3)) for image in (pixels[0], truth)]
        np.testing.assert_allclose(*smooth, rtol=FLAT_WITHIN + 0.01)


def test_a_flat_plate_is_left_as_it_is(
    write_plate: Callable[..., Path], make_settings: MakeSettings, tmp_path: Path
) -> None:
    write_plate(np.ones(SHAPE))
    ingest_plates(make_settings(illumination="on-read"))
    flat = flat_of(tmp_path / "out")
    np.testing.assert_allclose(flat, 1, atol=FLAT_WITHIN)
    assert flat.std() < 0.01


def test_saturated_and_dark_planes_leave_no_trace(
    write_plate: Callable[..., Path], make_settings: MakeSettings, tmp_path: Path
) -> None:
    folder = write_plate(np.ones(SHAPE))
    for site in (1, 2, 3):
        tifffile.imwrite(
            folder / f"P_A01_s{site}_w1.tif", np.pad(np.full((120, 80), 65535, np.uint16), ((0, 0), (0, 80)))
        )
    ingest_plates(make_settings(illumination="on-read"))
    np.testing.assert_allclose(flat_of(tmp_path / "out"), 1, atol=FLAT_WITHIN)


def test_baked_and_on_reading_are_the_same_pixels_and_the_same_statistics(
    write_plate: Callable[..., Path], make_settings: MakeSettings, tmp_path: Path
) -> None:
    """Known truth: the files' pixels over the stored flat-field, by NumPy."""
    folder = write_plate(vignette(), channels=2)
    for use in ("baked", "on-read"):
        ingest_plates(make_settings(illumination=use, out=tmp_path / use))
    baked, on_read, raw = (
        read(tmp_path / "baked"),
        read(tmp_path / "on-read"),
        read(tmp_path / "on-read", raw=True),
    )
    flat = flat_of(tmp_path / "baked")
    np.testing.assert_array_equal(flat, flat_of(tmp_path / "on-read"))
    for key in raw:
        source = np.stack([tifffile.imread(folder / f"P_{key.well}_s{key.site}_w{c}.tif") for c in (1, 2)])
        np.testing.assert_array_equal(raw[key], source)
        np.testing.assert_array_equal(baked[key], np.rint(source / flat).clip(0, 65535).astype(np.uint16))
        np.testing.assert_array_equal(on_read[key], baked[key])
    readers = [PlateReader(tmp_path / use / "P.ome.zarr") for use in ("baked", "on-read")]
    assert readers[0].intensity.percentiles == readers[1].intensity.percentiles
    pixels = np.stack([pixels[0] for pixels in baked.values()])
    channel = readers[1].channels[0]
    assert readers[1].intensity.percentiles[channel]["99"] == pytest.approx(np.percentile(pixels, 99))
    key = readers[0].fields[5]
    np.testing.assert_allclose(readers[0].intensity.moments(key), readers[1].intensity.moments(key))
    window = (7, 11, 30, 50)
    np.testing.assert_array_equal(readers[1].read_crop(key, *window), on_read[key][:, 7:37, 11:61])
    for use in ("baked", "on-read"):
        assert verify_plate(tmp_path / use / "P.ome.zarr") == []


def test_workers_and_resuming_change_no_byte(
    write_plate: Callable[..., Path],
    make_settings: MakeSettings,
    tmp_path: Path,
    hash_tree: HashTree,
) -> None:
    write_plate(vignette())
    ingest_plates(make_settings(illumination="baked", workers=1))
    whole = hash_tree(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    ingest_plates(make_settings(illumination="baked", workers=4))
    assert hash_tree(tmp_path / "out") == whole
    # As a kill leaves it: no root, a field half there, a flat-field that is not.
    out = tmp_path / "out"
    (out / "P.ome.zarr" / "zarr.json").unlink()
    (out / "P.cellvim" / "fields" / "A02-3.json").unlink()
    (out / "P.cellvim" / "illumination.npy").unlink()
    (out / "P.cellvim" / "qc.html").unlink()
    ingest_plates(make_settings(illumination="baked"))
    assert hash_tree(out) == whole


def test_a_plane_that_cannot_be_read_counts_for_nothing_and_stays_zero(
    write_plate: Callable[..., Path], make_settings: MakeSettings, tmp_path: Path
) -> None:
    folder = write_plate(vignette(), channels=2)
    damaged = folder / "P_B02_s8_w1.tif"
    tifffile.imwrite(damaged, tifffile.imread(damaged), compression="deflate")
    damaged.write_bytes(damaged.read_bytes()[:9000])
    ingest_plates(make_settings(illumination="baked", on_missing="fill"))
    flat = flat_of(tmp_path / "out")
    found = read(tmp_path / "out")[FieldKey("B02", 8)]
    assert not found[0].any()
    assert found[1].any()
    for channel in (1, 2):
        (folder / f"P_B02_s8_w{channel}.tif").unlink()
    ingest_plates(make_settings(illumination="baked", out=tmp_path / "without"))
    np.testing.assert_array_equal(flat_of(tmp_path / "without")[0], flat[0])


def test_a_plate_made_with_another_correction_is_not_mixed_with_this_one(
    write_plate: Callable[..., Path], make_settings: MakeSettings
) -> None:
    write_plate(vignette())
    ingest_plates(make_settings())
    for use in ("baked", "on-read"):
        with pytest.raises(OutputExistsError, match="illumination"):
            ingest_plates(make_settings(illumination=use))


def test_a_lost_or_damaged_flat_field_is_never_read_around(
    write_plate: Callable[..., Path], make_settings: MakeSettings, tmp_path: Path
) -> None:
    write_plate(vignette())
    ingest_plates(make_settings(illumination="on-read"))
    path = tmp_path / "out" / "P.cellvim" / "illumination.npy"
    content = path.read_bytes()
    for damage in (content[:100], b"", b"\x93NUMPY" + content[:50], content[:-4] + b"\0\0\0\0"):
        path.write_bytes(damage)
        with pytest.raises(InputError, match=r"illumination\.npy"):
            read(tmp_path / "out")
    np.save(path, np.ones((1, *SHAPE), np.float32), allow_pickle=False)
    with pytest.raises(InputError, match="differs from what was written"):
        read(tmp_path / "out")
    np.save(path, np.ones((1, 3, 3), np.float32), allow_pickle=False)
    record = path.with_name("plate.json")
    content = json.loads(record.read_text())
    content["illumination"]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    record.write_text(json.dumps(content))
    with pytest.raises(InputError, match="does not fit"):
        read(tmp_path / "out")
    path.unlink()
    with pytest.raises(InputError, match=r"illumination\.npy"):
        read(tmp_path / "out")


def test_without_basicpy_its_method_is_refused_with_a_hint(
    write_plate: Callable[..., Path], make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_plate(vignette())
    monkeypatch.setattr(illumination, "find_spec", lambda _name: None)
    with pytest.raises(UsageError, match="basicpy") as error:
        ingest_plates(make_settings(illumination="baked", illumination_method="basic"))
    assert "mean" in str(error.value.hint)


def test_basic_is_asked_of_basicpy(
    write_plate: Callable[..., Path],
    make_settings: MakeSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A stand-in that gives a known field back."""
    module = tmp_path / "modules" / "basicpy.py"
    module.parent.mkdir()
    module.write_text(
        "import numpy as np\n"
        "class BaSiC:\n"
        "    def __init__(self, get_darkfield): assert not get_darkfield\n"
        "    def fit(self, images):\n"
        "        assert images.shape[0] == 32 and images.dtype == np.float32\n"
        "        self.flatfield = np.linspace(0.5, 1.5, images[0].size).reshape(images[0].shape)\n"
    )
    monkeypatch.syspath_prepend(module.parent)
    write_plate(np.ones(SHAPE))
    ingest_plates(make_settings(illumination="baked", illumination_method="basic"))
    flat = flat_of(tmp_path / "out")[0]
    rows = flat.mean(axis=1)
    np.testing.assert_allclose(rows, np.linspace(rows[0], rows[-1], SHAPE[0]), atol=1e-3)
    assert rows[-1] / rows[0] == pytest.approx(1.5 / 0.5, rel=0.05)
    sys.modules.pop("basicpy", None)


@pytest.mark.parametrize(("fields", "chosen"), [(3, 3), (200, 200), (201, 200), (3456, 200)])
def test_the_sample_is_all_fields_or_200_at_even_distances(fields: int, chosen: int) -> None:
    plans = [FieldPlan(FieldKey("A01", site), ()) for site in range(fields)]
    sites = [plan.key.site for plan in illumination.sample(plans)]
    assert len(set(sites)) == len(sites) == chosen
    steps = np.diff(sites)
    assert not steps.size or steps.max() - steps.min() <= 1


def test_dividing_stays_within_what_the_type_holds() -> None:
    pixels = np.array([[0, 1, 200, 255]], np.uint8)
    np.testing.assert_array_equal(flatten(pixels, np.float32([[0.5, 0.5, 0.5, 2]])), [[0, 2, 255, 128]])


def test_the_page_shows_planes_as_they_are_read(
    write_plate: Callable[..., Path], make_settings: MakeSettings, tmp_path: Path
) -> None:
    folder = write_plate(vignette())
    dark = folder / "P_A01_s1_w1.tif"
    tifffile.imwrite(dark, tifffile.imread(dark) // 8)
    pictures = []
    for use in ("baked", "on-read"):
        ingest_plates(make_settings(illumination=use, out=tmp_path / use))
        page = (tmp_path / use / "P.cellvim" / "qc.html").read_text()
        pictures.append(re.findall(r'<img src="[^"]+" alt="Field A01/1[^"]*">', page))
    assert pictures[0] == pictures[1] != []
