"""Small plates of every kind of source, each of real pixels, with the files to damage."""

import shutil
from collections.abc import Callable
from pathlib import Path

from pipelines.torture import vendors
from pipelines.torture.victim import Victim


def build_victims(data: Path, folder: Path) -> dict[str, Victim]:
    """Copy every small plate into a folder of its own."""
    shutil.rmtree(folder, ignore_errors=True)
    victims = {}
    for name, build in BUILDERS.items():
        (folder / name).mkdir(parents=True)
        victims[name] = build(data, folder / name)
    return victims


def _operetta(data: Path, folder: Path) -> Victim:
    shutil.copytree(data / "operetta/operetta_plate/Images", folder / "Images")
    _make_writable(folder)
    images = tuple(f"Images/r03c03f0{site}p01-ch1sk1fk1fl1.tiff" for site in (1, 2))
    return Victim(
        "operetta", folder, "Images", {"tiff": images, "xml": ("Images/Index.idx.xml",)},
        {("C03", site, 0): (name,) for site, name in enumerate(images, start=1)},
    )  # fmt: skip


def _imagexpress(data: Path, folder: Path) -> Victim:
    original = data / "imagexpress/ImageXpress_exported/9987_Plate_3434"
    _copy(original / "9987.HTD", folder / "3434/9987.HTD")
    planes = {}
    for wave in (1, 2, 3):
        names = [f"TimePoint_1/ZStep_{z}/9987_B02_s1_w{wave}.TIF" for z in (1, 2)]
        for name in names:
            _copy(original / name, folder / "3434" / name)
        planes["B02", 1, wave - 1] = tuple(f"3434/{name}" for name in names)
    images = tuple(name for names in planes.values() for name in names)
    return Victim("imagexpress", folder, "3434", {"tiff": images, "csv": ("3434/9987.HTD",)}, planes)


def _deflate(data: Path, folder: Path) -> Victim:
    names = ("B7_01_1_3_DAPI_001.tif", "B7_01_2_3_GFP_001.tif", "B7_01_3_3_RFP_001.tif")
    for name in names:
        _copy(data / "nf1_schwann/images" / name, folder / "images" / name)
    _copy(data / "nf1_schwann/platemap_NF1_plate2.csv", folder / "map.csv")
    (folder / "map.csv").write_text(
        (folder / "map.csv").read_text().replace("well_position", "well").replace("genotype", "perturbation")
    )
    return Victim(
        "deflate", folder, "images",
        {"tiff": tuple(f"images/{name}" for name in names), "csv": ("map.csv",)},
        {("B07", 3, channel): (f"images/{name}",) for channel, name in enumerate(names)},
        {"pattern": "{well}_{}_{}_{field}_{channel}_{}.tif", "plate": "NF1", "platemap": "map.csv"},
    )  # fmt: skip


def _bbbc013(data: Path, folder: Path) -> Victim:
    names = ("Channel1-01-A-01.tif", "Channel2-01-A-01.tif")
    for name in names:
        _copy(data / "bbbc013/images" / name, folder / "images" / name)
    _copy(data / "bbbc013/platemap.csv", folder / "map.csv")
    return Victim(
        "bbbc013", folder, "images",
        {"tiff": tuple(f"images/{name}" for name in names), "csv": ("map.csv",)},
        {("A01", 1, channel): (f"images/{name}",) for channel, name in enumerate(names)},
        {"pattern": "Channel{channel}-{}-{row}-{column}.tif", "plate": "1049", "platemap": "map.csv"},
    )  # fmt: skip


def _copy(path: Path, copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_bytes(path.read_bytes())


def _make_writable(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


BUILDERS: dict[str, Callable[[Path, Path], Victim]] = {
    "operetta": _operetta,
    "imagexpress": _imagexpress,
    "deflate": _deflate,
    "bbbc013": _bbbc013,
    "load_data": vendors.build_load_data,
    "cellvoyager": vendors.build_cellvoyager,
    "cellomics": vendors.build_cellomics,
    "ome_tiff": vendors.build_ome_tiff,
    "ome_companion": vendors.build_ome_companion,
    "ome_zarr": vendors.build_ome_zarr,
    "own_zarr": vendors.build_own_zarr,
}
