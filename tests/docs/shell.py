"""The place where a page is tried: a folder, and a shell in it that has `cellvim` on its PATH and no network."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.docs.warm import FORKABLE

SECONDS = 120
NOWHERE = "http://127.0.0.1:9"


@dataclass(frozen=True)
class Shell:
    """Runs bash in a folder."""

    folder: Path
    commands: Path
    """Folder of a `cellvim` that goes before all others."""

    def run(self, source: str) -> subprocess.CompletedProcess[str]:
        """Run a script as a whole: it stops at the first command that fails."""
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", source],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def write(self, name: str, content: str) -> None:
        """Write a file that a page shows."""
        path = (self.folder / name).resolve()
        assert path.is_relative_to(self.folder.resolve())
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, "utf-8")

    @property
    def environment(self) -> dict[str, str]:
        places = (str(self.commands), str(Path(sys.executable).parent), os.environ["PATH"])
        proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), NOWHERE)
        own = {"PATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "100"}
        return {**os.environ, **proxies, **own, **FORKABLE}
