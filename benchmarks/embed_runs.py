"""One whole run of embed in a process of its own, which says how long it took and how much memory.

    python -m benchmarks.embed_runs MODEL OUT THREADS SETTINGS PLATE...

SETTINGS are more of them, as JSON. Importing is not timed; starting workers is. Prints one JSON object.
"""

import json
import sys
import time
from pathlib import Path

import torch

from cellvim.config import EmbedSettings
from cellvim.embed import embed_plates


def main() -> None:
    model, out, threads, more, *plates = sys.argv[1:]
    torch.set_num_threads(int(threads))
    settings = EmbedSettings.checked({"plates": plates, "model": model, "out": out, **json.loads(more)})
    started = time.perf_counter()
    summary = embed_plates(settings)
    seconds = time.perf_counter() - started
    facts = json.loads(Path(out).with_suffix(".run.json").read_text(encoding="utf-8"))["facts"]
    found = {
        "seconds": seconds,
        "peak_mib": peak_mib(),
        "rows": summary.rows,
        "waiting_share": facts["waiting_share"],
    }
    sys.stdout.write(json.dumps(found) + "\n")


def peak_mib() -> float:
    """Most resident memory that this process ever had; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
    return sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


if __name__ == "__main__":
    main()
