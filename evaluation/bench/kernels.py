"""What every CUDA kernel takes of a multiprocessor, by ptxas: registers, stack, spills, shared memory. No GPU is needed.

    rlplatform bench kernels [--architectures 80 90] [--source DIR] [--markdown] [--out FILE]

Needs nvcc and pybind11. Compiles csrc/bindings/*.cu of a checkout with the flags of CMakeLists.txt, for each architecture, and
reads what ptxas says of each kernel. `warps` is how many of a multiprocessor's 64 its registers (65,536, given out by 256 to a
warp) leave room for; blocks, shared memory and barriers may leave less. Exits with 1 where a kernel spills: its threads would
keep variables in the device's memory.
"""

import argparse
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from rlplatform.provenance import provenance

# As in CMakeLists.txt; tests/test_kernels.py holds the two against each other.
FLAGS = ("-O3", "-DNDEBUG", "-std=c++20", "-fmad=false")
REGISTERS, GIVEN_OUT, WARPS = 65_536, 256, 64  # of a multiprocessor of compute capability 8.0 and 9.0
ENTRY = re.compile(r"Compiling entry function '(\w+)' for 'sm_(\d+)'")
PROPERTIES = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")


@dataclass(frozen=True)
class Kernel:
    """What ptxas says of one kernel on one architecture. Bytes are a thread's, of `shared` a block's (static alone)."""

    file: str
    name: str
    architecture: int  # 80, 90
    registers: int
    stack: int
    spill_stores: int
    spill_loads: int
    shared: int

    @property
    def warps(self) -> int:
        """Of 64, as many as the registers of a multiprocessor leave room for."""
        of_a_warp = -(-self.registers * 32 // GIVEN_OUT) * GIVEN_OUT
        return min(WARPS, REGISTERS // max(of_a_warp, GIVEN_OUT))


def main() -> None:
    """Compile, print a table, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architectures", nargs="+", type=int, default=[80, 90])
    parser.add_argument("--source", type=Path, default=Path(__file__).resolve().parents[2], help="a checkout")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--out", type=Path, help="[default: results/kernels.json here]")
    given = parser.parse_args()
    nvcc, files = shutil.which("nvcc"), sorted((given.source / "csrc" / "bindings").glob("*.cu"))
    if nvcc is None or not files:
        sys.exit("no nvcc on PATH" if nvcc is None else f"{given.source} is no checkout: it has no csrc/bindings/*.cu")
    kernels = [kernel for file in files for kernel in of_file(nvcc, file, given.architectures)]
    print(as_markdown(kernels) if given.markdown else as_text(kernels))
    version = subprocess.run([nvcc, "--version"], check=True, capture_output=True, text=True).stdout  # noqa: S603
    release = re.search(r"release ([\d.]+)", version)
    out = given.out or Path(__file__).parent / "results" / "kernels.json"
    rows = [asdict(kernel) | {"warps": kernel.warps} for kernel in kernels]
    result = {"nvcc": release[1] if release else None, "flags": FLAGS, "rows": rows, **provenance()}
    out.write_text(json.dumps(result, indent=1) + "\n")
    spilling = [f"{k.name} (sm_{k.architecture})" for k in kernels if k.spill_stores or k.spill_loads]
    if spilling:
        sys.exit(f"{len(spilling)} kernel(s) spill: {', '.join(spilling)}")


def of_file(nvcc: str, file: Path, architectures: list[int]) -> list[Kernel]:
    """Compile one file for all architectures, without linking, and read what was said."""
    targets = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in architectures]
    include = [file.parents[1], sysconfig.get_path("include")]
    if (pybind11 := importlib.util.find_spec("pybind11")) is not None and pybind11.origin is not None:
        include.append(Path(pybind11.origin).parent / "include")  # what builds need, and installations do not have
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(  # noqa: S603
            [nvcc, *FLAGS, *targets, *(f"-I{path}" for path in include), "-Xptxas=-v", "-fatbin", str(file), "-o", f"{folder}/out"],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
    if done.returncode:
        sys.exit(done.stderr)
    return sorted(read(done.stderr, file.name), key=lambda kernel: (kernel.name, kernel.architecture))


def read(said: str, file: str) -> Iterator[Kernel]:
    """The kernels that ptxas -v spoke of."""
    plain = demangled([found[1] for found in ENTRY.finditer(said)])
    parts = ENTRY.split(said)[1:]
    for mangled, architecture, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        properties, used, shared = PROPERTIES.search(text), USED.search(text), SHARED.search(text)
        if properties is None or used is None:
            sys.exit(f"what ptxas says of {mangled} has another form than expected: {text}")
        stack, stores, loads = (int(number) for number in properties.groups())
        yield Kernel(
            file, plain[mangled], int(architecture), int(used[1]), stack, stores, loads, int(shared[1]) if shared else 0
        )


def demangled(names: list[str]) -> dict[str, str]:
    """By their mangled names, as a reader knows them: "threads_kernel<Fill>" for the instance that runs Fill."""
    filt = shutil.which("c++filt")
    if filt is None or not names:
        return {name: name for name in names}
    text = subprocess.run([filt], input="\n".join(names), check=True, capture_output=True, text=True).stdout  # noqa: S603
    return {name: short(line) for name, line in zip(names, text.splitlines(), strict=True)}


def short(signature: str) -> str:
    """Without the result, the arguments and our namespaces."""
    text = re.sub(r"^void |\b(rlp|cuda|bindings|minatar|control|\(anonymous namespace\))::", "", signature)
    text = text.replace("> >", ">>")
    depth = 0
    for at, char in enumerate(text):  # up to the arguments
        depth += (char == "<") - (char == ">")
        if char == "(" and depth == 0:
            return text[:at]
    return text


COLUMNS = ("kernel", "sm", "registers", "warps of 64", "stack", "spill stores", "spill loads", "shared")


def _rows(kernels: list[Kernel]) -> list[tuple[str, ...]]:
    return [
        tuple(str(x) for x in (k.name, k.architecture, k.registers, k.warps, k.stack, k.spill_stores, k.spill_loads, k.shared))
        for k in kernels
    ]  # fmt: skip


def as_text(kernels: list[Kernel]) -> str:
    """In columns."""
    rows = [COLUMNS, *_rows(kernels)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def as_markdown(kernels: list[Kernel]) -> str:
    """For docs/gpu.md: a row a kernel, its architectures side by side."""
    by_name: dict[str, list[Kernel]] = {}
    for kernel in kernels:
        by_name.setdefault(kernel.name, []).append(kernel)
    architectures = sorted({kernel.architecture for kernel in kernels})
    lines = [
        "| kernel | "
        + " | ".join(f"registers, sm_{a}" for a in architectures)
        + " | warps of 64 | stack | spills | shared |",
        "|---|" + "---:|" * (len(architectures) + 4),
    ]
    for name, all_ in by_name.items():
        of = {kernel.architecture: kernel for kernel in all_}
        each = [str(of[a].registers) if a in of else "" for a in architectures]
        most = [max(getattr(k, what) for k in all_) for what in ("stack", "spill_stores", "shared")]
        lines.append(
            f"| `{name}` | {' | '.join(each)} | {min(k.warps for k in all_)} | " + " | ".join(map(str, most)) + " |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
