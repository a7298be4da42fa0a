"""Single parts of mamba-ssm and causal-conv1d, without the packages that the rest of mamba-ssm wants.

`import mamba_ssm` imports every model in it, and with them tilelang, quack and transformers. Its scan and its norm
need none of these.
"""

import sys
from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType
from typing import Any


def bare_mamba_ssm() -> ModuleType | None:
    """Make mamba-ssm's package as if its `__init__` were empty; None where it is not installed."""
    if "mamba_ssm" in sys.modules:
        return sys.modules["mamba_ssm"]
    spec = find_spec("mamba_ssm")
    if spec is None or spec.submodule_search_locations is None:
        return None
    package = ModuleType("mamba_ssm")
    package.__path__ = list(spec.submodule_search_locations)
    return package


def part(module: str, name: str) -> tuple[Callable[..., Any] | None, str]:
    """Load one function.

    Returns:
        The function, and where it is from; or None, and why there is none.
    """
    package = bare_mamba_ssm()
    if package is not None:
        sys.modules["mamba_ssm"] = package
    try:
        loaded = __import__(module, fromlist=[name])
    # Extensions that were built for another torch or CUDA fail with OSError.
    except (ImportError, OSError) as error:
        return None, str(error).partition("\n")[0]
    return getattr(loaded, name), module.partition(".")[0]
