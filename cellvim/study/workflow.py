"""Where the Snakemake workflow lies, and how it is called."""

import os
import shutil
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from cellvim.config.base import cores
from cellvim.errors import InputError, NotFoundError, UsageError
from cellvim.study.cluster import job_prefix, status_command
from cellvim.study.plan import StudyPlan

_PLACES = (
    Path(__file__).parents[2] / "pipelines" / "snakemake",
    Path(sysconfig.get_path("data")) / "share" / "cellvim" / "snakemake",
)
_SHARE_OF_MEMORY = 0.9
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def workflow_folder() -> Path:
    """Folder of the Snakefile: in a checkout, or where an installation keeps its data."""
    for place in _PLACES:
        if (place / "Snakefile").is_file():
            return place
    raise NotFoundError(
        _PLACES[-1], expected="workflow", hint="install cellvim again: pip install 'cellvim[study]'"
    )


def profile_folder(profile: str) -> Path:
    """Folder of a profile: one of ours by its name, or any by its path.

    Raises:
        NotFoundError: There is neither.
    """
    ours = workflow_folder() / "profiles"
    for folder in (Path(profile),) if "/" in profile else (ours / profile, Path(profile)):
        if (folder / "config.yaml").is_file():
            return folder.absolute()
    names = ", ".join(sorted(path.name for path in ours.iterdir()))
    raise NotFoundError(
        profile, expected="Snakemake profile", hint=f"name one of {names}, or a folder with config.yaml"
    )


def executor_of(profile: Path) -> str:
    """Name of the executor that a profile asks for."""
    return str(_content_of(profile).get("executor", "local"))


def _content_of(profile: Path) -> dict[str, Any]:
    try:
        content: Any = yaml.safe_load((profile / "config.yaml").read_text(encoding="utf-8")) or {}
        return dict(content)
    except (yaml.YAMLError, TypeError, ValueError) as error:
        found = f"{profile / 'config.yaml'} is no Snakemake profile: {str(error).splitlines()[0]}"
        raise InputError(found, hint="see pipelines/snakemake/profiles") from error


def snakemake_command(
    plan: StudyPlan, profile: Path, config: Path, *, jobs: int | None, arguments: tuple[str, ...] = ()
) -> list[str]:
    """Command line of Snakemake for a study.

    Args:
        config: JSON file of `StudyPlan.as_dict`.
        jobs: Jobs at a time on a cluster, cores on this machine; the profile's, or all cores, if None.
        arguments: More, as Snakemake spells them.

    Raises:
        UsageError: Snakemake, or its plugin for the executor, is not installed.
    """
    executor = executor_of(profile)
    _require_installed("snakemake")
    command = [
        *_ending_with_this_process(), sys.executable, "-m", "snakemake", "--snakefile", str(workflow_folder() / "Snakefile"),
        "--directory", str(plan.folder), "--configfile", str(config),
        "--workflow-profile", "none", "--profile", str(profile), "--keep-going", "--rerun-incomplete", "--nolock",
        "--rerun-triggers", "mtime", "params",
    ]  # fmt: skip
    if executor == "local":
        asked = plan.settings.jobs
        gpus = max(asked.pretrain.gpus, asked.embed.gpus)
        command += ["--cores", str(jobs or cores()), "--resources", f"mem_mb={_memory_mb()}", f"gpu={gpus}"]
    else:
        command += ["--jobs", str(jobs)] if jobs else []
    if executor == "slurm":
        _require_installed("snakemake_executor_plugin_slurm")
        command += ["--slurm-jobname-prefix", job_prefix(plan.results)]
        command += ["--slurm-logdir", str(plan.results / "logs" / "slurm")]
        if "slurm-status-command" not in _content_of(profile):
            command += ["--slurm-status-command", status_command()]
    return [*command, *arguments]


def environment() -> dict[str, str]:
    """Environment in which jobs find the cellvim that runs this, whether or not its environment is activated."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}


def _ending_with_this_process() -> tuple[str, ...]:
    """Let Snakemake be interrupted when the process that started it dies, where the system can do that.

    `setpriv` of util-linux before 2.33, as of RHEL 8, has no such option.
    """
    program = shutil.which("setpriv")
    if program is None:
        return ()
    words = (program, "--pdeathsig", "INT")
    tried = subprocess.run([*words, "true"], capture_output=True, check=False)  # noqa: S603
    return words if tried.returncode == 0 else ()


def _require_installed(module: str) -> None:
    if find_spec(module) is None:
        found = f"{module.replace('_', '-')} is not installed in {sys.prefix}"
        raise UsageError(found, hint="pip install 'cellvim[study]'")


def _memory_mb() -> int:
    """Memory that jobs may share: of this machine, or of the container or job that this process is in."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _CGROUP_LIMIT.read_text().strip() if _CGROUP_LIMIT.is_file() else ""
    return int(min(total, int(limit) if limit.isdigit() else total) * _SHARE_OF_MEMORY / 1e6)
