"""Victims whose indexes are written here, in the form of each vendor, around real images."""

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr

from cellvim.config import IngestSettings
from cellvim.ingest import ingest_plates
from pipelines.torture.victim import Planes, Victim

REAL = "imagexpress/ImageXpress_exported/9987_Plate_3434/TimePoint_1/ZStep_1/9987_B02_s1_w{}.TIF"
_BTS = 'xmlns:bts="http://www.yokogawa.co.jp/BTS/BTSSchema/1.0"'
_MLF = """<?xml version="1.0" encoding="utf-8"?>
<bts:MeasurementData bts:Version="1.0" {bts}>
{records}
</bts:MeasurementData>
"""
_RECORD = (
    '<bts:MeasurementRecord bts:Type="IMG" bts:Time="2023-09-18T13:58:44.438+02:00" bts:Column="3" bts:Row="2" '
    'bts:TimePoint="1" bts:FieldIndex="1" bts:ZIndex="1" bts:TimelineIndex="1" bts:ActionIndex="1" '
    'bts:Action="2D" bts:X="-567.1" bts:Y="402.9" bts:Z="0.0" bts:Ch="{channel}">{name}</bts:MeasurementRecord>'
)
_MRF = """<?xml version="1.0" encoding="utf-8"?>
<bts:MeasurementDetail bts:Version="1.0" bts:Title="Screen" bts:BeginTime="2023-09-18T13:58:39.4014935+02:00" \
bts:MeasurementSettingFileName="Minimal.mes" bts:ColumnCount="12" bts:RowCount="8" {bts}>
  <bts:MeasurementSamplePlate bts:Name="P7" />
  <bts:MeasurementChannel bts:Ch="1" bts:HorizontalPixelDimension="0.325" bts:VerticalPixelDimension="0.325" />
  <bts:MeasurementChannel bts:Ch="2" bts:HorizontalPixelDimension="0.325" bts:VerticalPixelDimension="0.325" />
</bts:MeasurementDetail>
"""
_MES = """<?xml version="1.0" encoding="utf-8"?>
<bts:MeasurementSetting bts:Version="1.0" bts:Columns="12" bts:Rows="8" {bts}>
  <bts:ChannelList>
    <bts:Channel bts:Ch="1" bts:Target="DNA" bts:Acquisition="BP445/45" bts:Fluorophore="Hoechst" />
    <bts:Channel bts:Ch="2" bts:Target="Actin" bts:Acquisition="BP525/50" bts:Fluorophore="A488" />
  </bts:ChannelList>
</bts:MeasurementSetting>
"""
_OME = """<?xml version="1.0" encoding="UTF-8"?>
<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:0000000{own}">
  <Plate ID="Plate:0" Name="OMEPLATE" Rows="8" Columns="12"><Well ID="Well:0" Row="1" Column="2">
    <WellSample ID="WellSample:0" Index="0"><ImageRef ID="Image:0"/></WellSample></Well></Plate>
  <Image ID="Image:0" Name="B03"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="256" SizeY="256" \
SizeC="2" SizeZ="1" SizeT="1" PhysicalSizeX="0.325" PhysicalSizeXUnit="um" PhysicalSizeY="0.325" PhysicalSizeYUnit="um">
    <Channel ID="Channel:0:0" Name="DNA" SamplesPerPixel="1"/><Channel ID="Channel:0:1" Name="Actin" SamplesPerPixel="1"/>
    <TiffData IFD="0" FirstC="0" FirstZ="0" FirstT="0" PlaneCount="1"><UUID FileName="c1.ome.tif">urn:uuid:00000001</UUID></TiffData>
    <TiffData IFD="0" FirstC="1" FirstZ="0" FirstT="0" PlaneCount="1"><UUID FileName="c2.ome.tif">urn:uuid:00000002</UUID></TiffData>
  </Pixels></Image>
</OME>
"""


def build_cellvoyager(data: Path, folder: Path) -> Victim:
    names = [f"P7_B03_T0001F001L01A01Z01C0{channel}.tif" for channel in (1, 2)]
    planes = _copy_images(data, folder, [f"P7/{name}" for name in names], well="B03")
    records = "\n".join(_RECORD.format(channel=n, name=name) for n, name in enumerate(names, start=1))
    (folder / "P7/MeasurementData.mlf").write_text(_MLF.format(bts=_BTS, records=records))
    (folder / "P7/MeasurementDetail.mrf").write_text(_MRF.format(bts=_BTS))
    (folder / "P7/Minimal.mes").write_text(_MES.format(bts=_BTS))
    indexes = ("P7/MeasurementData.mlf", "P7/MeasurementDetail.mrf", "P7/Minimal.mes")
    return Victim("cellvoyager", folder, "P7", {"tiff": _files(planes), "xml": indexes}, planes)


def build_load_data(data: Path, folder: Path) -> Victim:
    planes = _copy_images(data, folder, ["P/images/a.tif", "P/images/b.tif"], well="B03")
    head = "FileName_OrigDNA,PathName_OrigDNA,FileName_OrigER,PathName_OrigER,Metadata_Plate,Metadata_Well,Metadata_Site"
    row = "a.tif,/home/ubuntu/screen/P/images,b.tif,/home/ubuntu/screen/P/images,P,B03,1"
    (folder / "P/load_data.csv").write_text(f"{head}\n{row}\n")
    return Victim(
        "load_data", folder, "P", {"tiff": _files(planes), "csv": ("P/load_data.csv",)}, planes
    )  # fmt: skip


def build_ome_tiff(data: Path, folder: Path) -> Victim:
    (folder / "P").mkdir(parents=True)
    planes = {}
    for channel in (1, 2):
        name = f"P/c{channel}.ome.tif"
        pixels = tifffile.imread(data / REAL.format(channel))
        # Not ome=True: the description is to be as here, so that each part of it can be damaged.
        tifffile.imwrite(folder / name, pixels, description=_OME.format(own=channel).encode(), metadata=None)
        planes["B03", 1, channel - 1] = (name,)
    files = _files(planes)
    return Victim("ome_tiff", folder, "P", {"tiff": files, "ome-xml": files}, planes)


def build_ome_companion(data: Path, folder: Path) -> Victim:
    """Plain TIFFs, described by a file of OME-XML beside them."""
    planes = _copy_images(data, folder, ["P/c1.tif", "P/c2.tif"], well="B03")
    text = _OME.format(own=9).replace(".ome.tif", ".tif")
    (folder / "P/P.companion.ome").write_text(text)
    targets = {"tiff": _files(planes), "xml": ("P/P.companion.ome",)}
    return Victim("ome_companion", folder, "P", targets, planes)


def build_ome_zarr(data: Path, folder: Path) -> Victim:
    """An OME-Zarr 0.4 plate, as most programs still write it."""
    planes = _copy_images(data, folder, ["truth/1.tif", "truth/2.tif"], well="B03", site=0)
    pixels = np.stack([tifffile.imread(folder / name) for name in _files(planes)])
    write_plate_04(folder / "P.zarr", pixels)
    files = sorted(
        path.relative_to(folder).as_posix() for path in (folder / "P.zarr").rglob("*") if path.is_file()
    )
    json_files = tuple(name for name in files if Path(name).name.startswith(".z"))
    chunks = tuple(name for name in files if name not in json_files)
    return Victim("ome_zarr", folder, "P.zarr", {"json": json_files, "bytes": chunks}, planes)


def build_own_zarr(data: Path, folder: Path) -> Victim:
    """An OME-Zarr 0.5 plate, sharded, as we write it."""
    planes = _copy_images(data, folder, ["truth/Q_B03_s1_w1.tif", "truth/Q_B03_s1_w2.tif"], well="B03")
    ingest_plates(IngestSettings(sources=(folder / "truth",), out=folder, workers=1))
    files = [
        path.relative_to(folder).as_posix()
        for path in sorted((folder / "Q.ome.zarr").rglob("*"))
        if path.is_file()
    ]
    json_files = tuple(name for name in files if name.endswith(".json"))
    shards = tuple(name for name in files if name not in json_files)
    return Victim("own_zarr", folder, "Q.ome.zarr", {"json": json_files, "bytes": shards}, planes)


def build_cellomics(data: Path, folder: Path) -> Victim:
    names = [f"P/AS_09125_050116030001_D03f00d{channel}.tif" for channel in (0, 1)]
    planes = _copy_images(data, folder, names, well="D03", site=0)
    return Victim("cellomics", folder, "P", {"tiff": tuple(names)}, planes)


def write_plate_04(folder: Path, pixels: np.ndarray) -> None:
    """Write one field of well B03, (c, y, x), as OME-Zarr 0.4."""
    plate = zarr.open_group(folder, mode="w", zarr_format=2)
    plate.attrs["plate"] = {
        "version": "0.4", "name": "P", "field_count": 1,
        "rows": [{"name": "A"}, {"name": "B"}], "columns": [{"name": "03"}],
        "wells": [{"path": "B/03", "rowIndex": 1, "columnIndex": 0}],
    }  # fmt: skip
    well = plate.create_group("B").create_group("03")
    well.attrs["well"] = {"version": "0.4", "images": [{"path": "0"}]}
    image = well.create_group("0")
    axes: list[Any] = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}]
    axes += [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    scale: list[Any] = [{"type": "scale", "scale": [1.0, 1.0, 1.0, 0.325, 0.325]}]
    datasets: list[Any] = [{"path": "0", "coordinateTransformations": scale}]
    image.attrs.put(
        {
            "multiscales": [{"version": "0.4", "axes": axes, "datasets": datasets}],
            "omero": {"channels": [{"label": "DNA"}, {"label": "Actin"}]},
        }
    )
    array = image.create_array(
        "0", shape=(1, len(pixels), 1, *pixels.shape[1:]), chunks=(1, 1, 1, 128, 128), dtype="uint16",
        chunk_key_encoding={"name": "v2", "separator": "/"},
    )  # fmt: skip
    array[:] = pixels[None, :, None]


def _copy_images(data: Path, folder: Path, names: list[str], *, well: str, site: int = 1) -> Planes:
    """Copy real images, one per channel."""
    for channel, name in enumerate(names, start=1):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((data / REAL.format(channel)).read_bytes())
    return {(well, site, channel): (name,) for channel, name in enumerate(names)}


def _files(planes: Planes) -> tuple[str, ...]:
    return tuple(name for names in planes.values() for name in names)
