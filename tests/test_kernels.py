"""The resource report: what it reads off ptxas, and what it promises of the kernels that are there."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rlplatform.evaluation.bench import kernels

ROOT = Path(__file__).resolve().parents[1]
SAID = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN3rlp4cuda14threads_kernelINS0_4FillEEEvmT_' for 'sm_90'
ptxas info    : Function properties for _ZN3rlp4cuda14threads_kernelINS0_4FillEEEvmT_
    8 bytes stack frame, 12 bytes spill stores, 4 bytes spill loads
ptxas info    : Used 40 registers, used 0 barriers, 8 bytes cumulative stack size, 384 bytes smem, 416 bytes cmem[0]
ptxas info    : Compiling entry function 'plain' for 'sm_80'
ptxas info    : Function properties for plain
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 400 bytes cmem[0]
"""


@pytest.mark.skipif(shutil.which("c++filt") is None, reason="no c++filt")
def test_what_ptxas_says_is_read() -> None:
    first, second = kernels.read(SAID, "x.cu")
    assert first == kernels.Kernel("x.cu", "threads_kernel<Fill>", 90, 40, 8, 12, 4, 384)
    assert second == kernels.Kernel("x.cu", "plain", 80, 255, 0, 0, 0, 0)
    assert (first.warps, second.warps) == (
        51,
        8,
    )  # 65,536 / (40 x 32), and 65,536 / 8,192: registers go out by 256 to a warp
    with pytest.raises(SystemExit, match="another form than expected"):
        list(kernels.read(SAID.replace("Used 255 registers", "Used some registers"), "x.cu"))


@pytest.mark.parametrize(("registers", "warps"), [(16, 64), (32, 64), (33, 51), (64, 32), (65, 28), (128, 16)])
def test_registers_bound_the_warps(registers: int, warps: int) -> None:
    assert kernels.Kernel("x.cu", "k", 80, registers, 0, 0, 0, 0).warps == warps


def test_flags_are_the_builds() -> None:
    text = (ROOT / "CMakeLists.txt").read_text()
    found = re.search(r"\$<\$<COMPILE_LANGUAGE:CUDA>:(-std=[^>]*)>", text)
    assert found is not None
    ours = [flag for flag in kernels.FLAGS if flag not in {"-O3", "-DNDEBUG"}]  # those are CMake's Release
    assert [flag for flag in found[1].split(";") if not flag.startswith("-X")] == ours
    assert 'cmake.build-type = "Release"' in (ROOT / "pyproject.toml").read_text()


def test_the_recorded_table_is_the_documents_and_nothing_spills() -> None:
    rows = json.loads((ROOT / "evaluation" / "bench" / "results" / "kernels.json").read_text())["rows"]
    recorded = [kernels.Kernel(**{k: v for k, v in row.items() if k != "warps"}) for row in rows]
    assert {kernel.architecture for kernel in recorded} == {80, 90}
    assert not [kernel for kernel in recorded if kernel.spill_stores or kernel.spill_loads]
    assert kernels.as_markdown(recorded) in (ROOT / "docs" / "gpu.md").read_text()


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
def test_a_kernel_that_spills_is_found(tmp_path: Path) -> None:
    """Sixty numbers at a time in at most 32 registers."""
    bindings = tmp_path / "csrc" / "bindings"
    bindings.mkdir(parents=True)
    (bindings / "spills.cu").write_text("""
__global__ void __launch_bounds__(1024, 2) spills(float* x) {
  float held[60];
#pragma unroll
  for (int i = 0; i < 60; ++i) held[i] = x[i * 7];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 60; ++i) x[i] = held[59 - i] * held[i];
}
""")
    command = [sys.executable, "-P", "-m", "rlplatform.evaluation.bench.kernels", "--architectures", "90"]
    done = subprocess.run(
        [*command, "--source", tmp_path, "--out", tmp_path / "out.json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "1 kernel(s) spill: spills" in done.stderr
    (row,) = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert row["spill_stores"] > 0
