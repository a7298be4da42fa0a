"""The tasks of the evaluation by name, in the order in which a biologist asks them."""

from collections.abc import Callable, Mapping

from cellvim.config import TaskName
from cellvim.evaluate.batch import batch
from cellvim.evaluate.consistency import consistency
from cellvim.evaluate.nsc import nsc, nscb
from cellvim.evaluate.percent_replicating import percent_replicating
from cellvim.evaluate.recall import recall
from cellvim.evaluate.results import TaskResult
from cellvim.evaluate.retrieval_tasks import activity, distinctiveness, replicate_retrieval
from cellvim.evaluate.screen import Screen

Task = Callable[[Screen], TaskResult]


def dose(screen: Screen) -> TaskResult:
    """Follow profiles along the dose; scipy loads only if that is asked for."""
    from cellvim.evaluate.dose import dose as follow

    return follow(screen)


def probe(screen: Screen) -> TaskResult:
    """Train and judge linear probes; scikit-learn loads only if they are asked for."""
    from cellvim.evaluate.probe import run_probes

    return run_probes(screen)


TASKS: Mapping[TaskName, Task] = {
    "activity": activity,
    "distinctiveness": distinctiveness,
    "replicate_retrieval": replicate_retrieval,
    "consistency": consistency,
    "nsc": nsc,
    "nscb": nscb,
    "percent_replicating": percent_replicating,
    "recall": recall,
    "dose": dose,
    "probe": probe,
    "batch": batch,
}
