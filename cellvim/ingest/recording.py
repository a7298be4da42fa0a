"""The record of an ingested plate: what it was made from, and what was made."""

from dataclasses import asdict

from cellvim.config import IngestSettings
from cellvim.ingest.preflight import Preflight
from cellvim.ingest.summary import PlateResult
from cellvim.provenance import Artifact, Run, sha256_of, sha256_of_file
from cellvim.store import PlateReader, PlateWriter
from cellvim.store.checksums import CHECKSUMS_FILE
from cellvim.store.platemap import platemap_files
from cellvim.store.records import load_table, manifest_sha256
from cellvim.store.signature import RUN_FILE, signed
from cellvim.store.writer import MANIFEST_FILE


def record_inputs(run: Run, check: Preflight, result: PlateResult, settings: IngestSettings) -> None:
    """Note what says where each plane belongs, the plate map, counts, and what is known of the acquisition."""
    for path in check.plate.described_by:
        # A changed digit of an index is still a valid index: only its checksum tells.
        run.record_input(path, sha256_of_file(path), path)
    run.inputs.update(check.plate.descriptions)
    if settings.platemap is not None:
        names = [check.plate.name, *([check.plate.barcode] if check.plate.barcode else [])]
        for path in platemap_files(settings.platemap, names):
            run.record_input(path, sha256_of_file(path), path)
    run.counts.update(
        wells=result.wells, fields=result.fields, skipped=len(result.skipped), failed=len(result.failed)
    )
    run.facts.update(source=result.evidence, bytes_in=result.bytes_in, bytes_out=result.bytes_out)
    run.facts["folder"] = str(check.plate.folder)
    run.facts.update(acquired=check.plate.acquired, barcode=check.plate.barcode)
    run.facts["wavelengths"] = {
        stain: asdict(check.plate.wavelengths[key])
        for key, stain in check.stains.items()
        if key in check.plate.wavelengths
    }


def record_outputs(run: Run, check: Preflight, writer: PlateWriter) -> None:
    """Note the images behind a finished plate, and the plate by each of the hashes that later stages know it by."""
    manifest = load_table(writer.companion, MANIFEST_FILE)
    run.reads.append(
        Artifact(
            name=f"images of {check.plate.name}",
            kind="images",
            path=str(check.plate.folder),
            sha256=manifest_sha256(manifest),
            count=manifest["name"].n_unique(),
        )
    )
    plate = PlateReader(writer.place.address)
    checksums = writer.companion.read(CHECKSUMS_FILE)
    place, companion = writer.place, writer.companion
    run.outputs = [
        Artifact(name=place.name, kind="plate", path=place.location, sha256=plate.fingerprint),
        Artifact(name=place.name, kind="pixels", path=place.location, sha256=plate.pixels_fingerprint),
        Artifact(
            name=f"{companion.name}/{CHECKSUMS_FILE}",
            path=f"{companion.location}/{CHECKSUMS_FILE}",
            sha256=sha256_of(checksums),
        ),
    ]


def write_record(run: Run, writer: PlateWriter) -> None:
    location = f"{writer.companion.location}/{RUN_FILE}"
    writer.companion.write(RUN_FILE, signed(run.as_dict(location)))
