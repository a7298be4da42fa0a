"""`run.json`: from any output back to the command, settings, seed, inputs and versions that made it."""

from cellvim.provenance.chain import Node, follow
from cellvim.provenance.hashes import sha256_of, sha256_of_file, sha256_of_json
from cellvim.provenance.record import Artifact, RunRecord, read_record
from cellvim.provenance.run import Run, complete_record, files_written, note_attempt
from cellvim.provenance.surroundings import RECORDED_PACKAGES, package_versions

__all__ = [
    "RECORDED_PACKAGES",
    "Artifact",
    "Node",
    "Run",
    "RunRecord",
    "complete_record",
    "files_written",
    "follow",
    "note_attempt",
    "package_versions",
    "read_record",
    "sha256_of",
    "sha256_of_file",
    "sha256_of_json",
]
