"""Command line. Each command turns arguments into settings, calls one library function, prints one result.

Results go to stdout; log, progress and errors to stderr. Torch is imported inside commands, so `--help` is instant.
"""

# Commands are registered, and listed by --help, in the order of these imports.
# isort: off
from cellvim.cli import stages, profiles, normalizing, studying, reproducing, looking, weights

# isort: on
from cellvim.cli.app import app
from cellvim.terminal import run_to_exit_code

__all__ = [
    "app",
    "looking",
    "main",
    "normalizing",
    "profiles",
    "reproducing",
    "stages",
    "studying",
    "weights",
]


def main() -> None:
    run_to_exit_code(app)
