"""What every Triton kernel costs on a Hopper GPU, found by compiling it: no GPU is needed.

    python -m benchmarks.hopper [--json] [--check] [--first]

Prints a Markdown table, or JSON. `--check` exits with 1 if a kernel uses stack or local memory, spills registers, or
takes more registers than its bound. `--first` compiles the first case of each kernel only. Needs Triton's own compiler tools, so Linux; from a checkout that is not
installed, set PYTHONPATH=kernels.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

if os.environ.get("TRITON_INTERPRET") == "1":
    sys.exit("benchmarks.hopper compiles kernels, which TRITON_INTERPRET=1 turns into Python: unset it.")

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from cellvim_kernels.add_rms_norm.hopper import BUILDS as ADD_RMS_NORM
from cellvim_kernels.conv_pool.hopper import BUILDS as CONV_POOL
from cellvim_kernels.expand_gate.hopper import BUILDS as EXPAND_GATE
from cellvim_kernels.hopper import HopperBuild
from cellvim_kernels.selective_scan.hopper import BUILDS as SELECTIVE_SCAN

BUILDS = (*CONV_POOL, *SELECTIVE_SCAN, *EXPAND_GATE, *ADD_RMS_NORM)
CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z]\w*)", re.MULTILINE)
RESOURCES = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")
COLUMNS = (
    "kernel | warps | registers (bound) | shared | stack | local | LDL/STL | shuffles | MUFU | instructions"
)


@dataclass(frozen=True)
class Cost:
    """What the compiler made of a kernel; memory in bytes, per thread but for `shared`."""

    name: str
    warps: int
    registers: int
    bound: int
    shared: int
    stack: int
    local: int
    spills: int
    shuffles: int
    special_functions: int
    instructions: int

    @property
    def faults(self) -> list[str]:
        """What the kernel does that it must not."""
        found = [
            f"{count} {what}"
            for count, what in (
                (self.stack, "bytes of stack"),
                (self.local, "bytes of local memory"),
                (self.spills, "LDL/STL"),
            )
            if count
        ]
        if self.registers > self.bound:
            found.append(f"{self.registers} registers, bound {self.bound}")
        return found

    @property
    def row(self) -> str:
        """One line of the table."""
        return (
            f"| {self.name} | {self.warps} | {self.registers} ({self.bound}) | {self.shared} | {self.stack} "
            f"| {self.local} | {self.spills} | {self.shuffles} | {self.special_functions} | {self.instructions} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a kernel exceeds its bounds")
    parser.add_argument("--first", action="store_true", help="only the first case of each kernel")
    arguments = parser.parse_args()
    costs = [cost_of(build) for build in (first_cases() if arguments.first else BUILDS)]
    if arguments.json:
        print(json.dumps([asdict(cost) for cost in costs]))
    else:
        print(f"Triton {triton.__version__}, sm_90\n\n| {COLUMNS} |\n|---{'|---:' * 9}|")
        print(*(cost.row for cost in costs), sep="\n")
    if arguments.check:
        check(costs)


def first_cases() -> list[HopperBuild]:
    """One case of each kernel: as the default model launches it, in bf16."""
    by_kernel: dict[str, HopperBuild] = {}
    for build in BUILDS:
        by_kernel.setdefault(build.kernel.fn.__name__, build)
    return list(by_kernel.values())


def check(costs: list[Cost]) -> None:
    """Exit with 1, naming each kernel that does what it must not."""
    faulty = [f"{cost.name}: {', '.join(cost.faults)}" for cost in costs if cost.faults]
    if faulty:
        sys.exit("\n".join(faulty))


def cost_of(build: HopperBuild) -> Cost:
    """Compile one kernel and take its machine code apart."""
    code = compile_for_hopper(build)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(code)
        file.flush()
        usage = RESOURCES.search(dump(file.name, "--dump-resource-usage"))
        operations = Counter(INSTRUCTION.findall(dump(file.name, "--dump-sass")))
    if usage is None or not operations:
        sys.exit(f"cuobjdump says nothing about {build.name}: its output may have a new form.")
    registers, stack, shared, local = map(int, usage.groups())
    return Cost(
        build.name,
        build.warps,
        registers,
        build.registers,
        shared,
        stack,
        local,
        spills=operations["LDL"] + operations["STL"],
        shuffles=operations["SHFL"],
        special_functions=operations["MUFU"],
        instructions=operations.total() - operations["NOP"],
    )


def compile_for_hopper(build: HopperBuild) -> bytes:
    """Translate as a launch on an H100 or H200 would, where memory of tensors starts at a multiple of 16 bytes."""
    aligned = {
        (index,): [["tt.divisibility", 16]]
        for index, name in enumerate(build.kernel.arg_names)
        if build.signature[name].startswith("*")
    }
    source = ASTSource(fn=build.kernel, signature=build.signature, constexprs=build.constexprs, attrs=aligned)
    options = {"num_warps": build.warps, "enable_fp_fusion": False}
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    code: bytes = compiled.asm["cubin"]
    return code


def dump(cubin: str, what: str) -> str:
    """Run cuobjdump, which comes with Triton's wheel."""
    if not CUOBJDUMP.is_file():
        sys.exit(
            f"no cuobjdump at {CUOBJDUMP}: install Triton's wheel for Linux, which brings NVIDIA's tools."
        )
    return subprocess.run([CUOBJDUMP, what, cubin], capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    main()
