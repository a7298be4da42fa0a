"""The C++ kernels of the CPU: compiled once per machine, loaded by ctypes. Plain functions, no headers of torch."""

from cellvim_kernels.cpp.build import CompileUnavailableError, describe, fingerprint, load

__all__ = ["CompileUnavailableError", "describe", "fingerprint", "load"]
