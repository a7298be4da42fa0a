"""Ingest one damaged plate after another in one process, and judge each by its bytes. Started by `mutants`.

Numbers come in by stdin, one line each, and verdicts go out by stdout, one JSON line each: a process that hangs or
dies costs its starter one trial.
"""

import argparse
import json
import logging
import resource
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cellvim.config import IngestSettings
from cellvim.errors import CellvimError, ExitCode, SomeFailedError
from cellvim.ingest import IngestSummary, ingest_plates
from pipelines.torture.attack import Attack
from pipelines.torture.escapes import EXPANDED, Canary
from pipelines.torture.hostile import attacks
from pipelines.torture.judge import BROKEN, REFUSED, Output, compare, compare_with_truth, read_output
from pipelines.torture.memory import reset_peak, status
from pipelines.torture.mutators import MUTATORS
from pipelines.torture.victim import Victim
from pipelines.torture.victims import build_victims

MOST_BYTES = 1 << 30
"""Memory that one trial may take beyond what the process already has."""
MOST_SECONDS = 5.0
REFUSALS = (ExitCode.SOME_FAILED, ExitCode.USAGE, ExitCode.BAD_INPUT)
ON_MISSING = ("stop", "stop", "stop", "skip-field", "fill")


@dataclass(frozen=True)
class Verdict:
    """What became of one damaged plate.

    Attributes:
        number: Of the mutant, or of the attack.
        victim: Name of the plate.
        kind: Of the damaged file, or of the attack.
        damage: What was done to it, and where.
        verdict: One of the five.
        reason: What cellvim said, or what is broken.
        seconds: Processor time of a dry run and an ingest: the machine may have more to do.
        peak_bytes: Memory beyond what the process had before.
    """

    number: int
    victim: str
    kind: str
    damage: str
    verdict: str
    reason: str
    seconds: float
    peak_bytes: int


class Bench:
    """The plates, and what an undisturbed ingest makes of each."""

    def __init__(self, data: Path, scratch: Path, seed: int) -> None:
        self.seed = seed
        self.out = scratch / "out"
        self.victims = build_victims(data, scratch / "victims")
        self.canary = Canary(scratch / "canary-outside")
        self.attacks = attacks(self.victims, self.canary)
        self.whole: dict[str, Output] = {}
        for name, victim in self.victims.items():
            summary = self._ingest(victim, on_missing="stop", dry_run=False)
            compare_with_truth(self.out, victim)
            self.whole[name] = read_output(self.out, summary)

    def mutant(self, number: int) -> Attack:
        """Damage one file of one plate: a function of the seed and the number alone."""
        draw = np.random.default_rng((self.seed, number))
        # Two of three are images.
        pairs = [
            (victim, kind)
            for victim in self.victims.values()
            for kind in victim.targets
            if (kind == "tiff") == (number % 3 < 2)
        ]
        victim, kind = pairs[number // 3 % len(pairs)]
        names = victim.targets[kind]
        target = names[int(draw.integers(len(names)))]
        mutator = [*MUTATORS[kind]][int(draw.integers(len(MUTATORS[kind])))]
        content = (victim.folder / target).read_bytes()
        changed = MUTATORS[kind][mutator](content, draw)
        return Attack(victim.name, kind, f"{mutator} in {target}", {target: changed})

    def try_attack(self, number: int, attack: Attack, *, on_missing: str) -> Verdict:
        """Put the damage in place, ingest, judge, and put the plate right again."""
        victim = self.victims[attack.victim]
        originals = {name: _read(victim.folder / name) for name in attack.files}
        _place(victim.folder, attack.files)
        resident = reset_peak()
        started = time.process_time()
        try:
            verdict, reason = self._judge(victim, attack, on_missing)
        finally:
            seconds, peak = time.process_time() - started, status("VmHWM") - resident
            _place(victim.folder, originals)
        if seconds > attack.most_seconds or peak > MOST_BYTES:
            verdict, reason = BROKEN, f"took {seconds:.1f} s and {peak / 1e6:.0f} MB; {verdict}: {reason}"
        return Verdict(number, victim.name, attack.kind, attack.damage, verdict, reason, seconds, peak)

    def _judge(self, victim: Victim, attack: Attack, on_missing: str) -> tuple[str, str]:
        try:
            problem = self._try_dry(victim, on_missing)
            if problem is not None:
                return BROKEN, f"dry run: {problem}"
            summary = self._ingest(victim, on_missing=on_missing, dry_run=False)
        except SomeFailedError as error:
            summary = getattr(error, "summary", IngestSummary(()))
        except CellvimError as error:
            return self._judge_refusal(error)
        except Exception as error:  # noqa: BLE001 - what a user would see as a traceback
            return BROKEN, f"{type(error).__name__}: {error}"[:300]
        if (escape := self.canary.escape(self.out)) is not None:
            return BROKEN, escape
        return compare(read_output(self.out, summary), self.whole[victim.name], attack)

    def _try_dry(self, victim: Victim, on_missing: str) -> str | None:
        """What is wrong with the dry run, which may refuse, but neither write nor break."""
        try:
            self._ingest(victim, on_missing=on_missing, dry_run=True)
        except CellvimError as error:
            return _wrong_refusal(error)
        return "it wrote something" if self.out.exists() else None

    def _judge_refusal(self, error: CellvimError) -> tuple[str, str]:
        problem = _wrong_refusal(error)
        if problem is None and any(self.out.glob("*.ome.zarr/zarr.json")):
            problem = f"refused, but there is a finished plate: {error.found[:200]}"
        if problem is None and EXPANDED in error.found:
            problem = "an entity was expanded"
        if problem is None:
            problem = self.canary.touched(self.out)
        return (REFUSED, error.found[:200]) if problem is None else (BROKEN, problem)

    def _ingest(self, victim: Victim, *, on_missing: str, dry_run: bool) -> IngestSummary:
        shutil.rmtree(self.out, ignore_errors=True)
        self.canary.forget()
        content = dict(victim.settings)
        if "platemap" in content:
            content["platemap"] = victim.folder / content["platemap"]
        content |= {"sources": (victim.folder / victim.source,), "out": self.out, "workers": 1}
        return ingest_plates(
            IngestSettings.checked({**content, "on_missing": on_missing, "dry_run": dry_run})
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--kept", type=Path, required=True, help="folder for whatever breaks cellvim")
    parser.add_argument("--seed", type=int, required=True)
    chosen = parser.parse_args()
    logging.disable(logging.CRITICAL)
    bench = Bench(chosen.data, chosen.scratch, chosen.seed)
    _limit_memory()
    answer(asdict(Verdict(-1, "", "", "", "ready", str(len(bench.attacks)), 0, 0)))
    for line in sys.stdin:
        kind, number = line.split()
        attack = bench.mutant(int(number)) if kind == "mutant" else bench.attacks[int(number)]
        on_missing = ON_MISSING[int(number) // len(bench.victims) % len(ON_MISSING)]
        verdict = bench.try_attack(int(number), attack, on_missing=on_missing)
        if verdict.verdict == BROKEN:
            keep(chosen.kept / f"{kind}-{number}", bench, attack, verdict, on_missing)
        answer(asdict(verdict))


def keep(folder: Path, bench: Bench, attack: Attack, verdict: Verdict, on_missing: str) -> None:
    """Keep a plate that breaks cellvim, as it was when it did."""
    victim = bench.victims[attack.victim]
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(victim.folder, folder / "plate", symlinks=True)
    _place(folder / "plate", attack.files)
    settings = {"source": victim.source, **victim.settings, "on_missing": on_missing}
    (folder / "trial.json").write_text(json.dumps({**asdict(verdict), "settings": settings}, indent=2))


def answer(content: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()


def _wrong_refusal(error: CellvimError) -> str | None:
    """A refusal must be about the input, and say what was found and what to do."""
    if error.exit_code not in REFUSALS:
        return f"exit code {int(error.exit_code)}: {error.found[:200]}"
    if not error.found.strip() or not error.hint.strip():
        return f"no words: {error!r}"
    return None


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _place(folder: Path, files: Mapping[str, bytes | None]) -> None:
    """Write files; None stands for a file that is not there."""
    for name, content in files.items():
        path = folder / name
        path.unlink(missing_ok=True)
        if content is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def _limit_memory() -> None:
    """Whatever is asked for beyond the limit fails at once, before the machine has to swap."""
    limit = status("VmSize") + MOST_BYTES + (MOST_BYTES >> 2)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    main()
