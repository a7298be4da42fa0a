"""Triton's interpreter without what it repeats and unwatched: the same results in a tenth of the time."""

import sys
from collections.abc import Callable
from typing import Any

try:
    from triton.runtime import interpreter
except ImportError:  # Triton exists for Linux alone
    interpreter = None


def patch_once_per_launch() -> None:
    """Have the interpreter put its own functions in place of Triton's once per launch and module of kernels.

    It does so again at every call of a function from within a kernel, where nothing is left to replace. Coverage of
    lines, which is not asked of code that a compiler reads, doubles the rest; it waits until the launch is over.
    """
    if not hasattr(interpreter, "_LangPatchScope"):
        return  # another version of Triton, only slower
    patch: Callable[[Any], Any] = interpreter._patch_lang
    launch: Callable[..., None] = interpreter.GridExecutor.__call__
    is_launched = False
    patched: set[str] = set()

    def patch_unless_done(function: Any) -> Any:
        if function.__module__ in patched:
            return interpreter._LangPatchScope()
        if is_launched:
            patched.add(function.__module__)
        return patch(function)

    def launch_afresh(self: Any, *arguments: Any, **named: Any) -> None:
        nonlocal is_launched
        is_launched = True
        trace = sys.gettrace()
        sys.settrace(None)
        try:
            launch(self, *arguments, **named)
        finally:
            sys.settrace(trace)
            is_launched = False
            patched.clear()

    interpreter._patch_lang = patch_unless_done
    interpreter.GridExecutor.__call__ = launch_afresh
