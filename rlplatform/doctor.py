"""What of rlplatform is active on this machine, and why the rest is not: the rows that `rlplatform doctor` prints.

Looks and reports. Nothing is downloaded, written or changed, and a part that fails to load is a row, not an exception.
"""

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

GIB = 2**30
PYTHONS = ((3, 11), (3, 13))  # the oldest and the newest that pyproject.toml allows
# A run of 100,000 Atari steps keeps 0.7 GiB of replay in memory and as much on disk, beside the process itself.
ENOUGH_MEMORY_GIB, ENOUGH_DISK_GIB = 4.0, 2.0


@dataclass(frozen=True)
class Row:
    """One part of the installation or of the machine."""

    part: str
    active: bool
    version: str | None  # None where it is not installed or has none
    why: str  # what it is used for or can do; where it is not active, why, and what would help
    required: bool = (
        False  # training on Atari needs it: `rlplatform doctor` exits with 1 where such a part is not active
    )


def diagnose(folder: Path | None = None) -> list[Row]:
    """All rows, in the order of printing. Runs are assumed to be written below `folder` [default: the current one]."""
    rows = [
        _python(),
        _distribution("numpy", "numpy", "arrays", required=True),
        _torch(),
        _core(),
        _gpu(),
        _cuda(),
        _distribution("gymnasium", "gymnasium", "environment interfaces", required=True),
        _ale(),
        _distribution("tensorboard", "tensorboard", "event files of runs", required=True),
        _distribution("ray", "ray", "actors on many processes and machines, sweeps", extra="cluster"),
        _distribution("dm-control", "dm_control", "DeepMind Control tasks", extra="dmc"),
        _distribution("mujoco", "mujoco", "physics of the DeepMind Control tasks", extra="dmc"),
        _distribution("envpool", "envpool", "Atari on threads (backend=envpool)", extra="throughput"),
        _distribution("wandb", "wandb", "a second place for metrics", extra="wandb"),
        _distribution("imageio-ffmpeg", "imageio_ffmpeg", "films as .mp4 (.gif needs nothing)", extra="video"),
    ]
    return [*rows, _cores(), _memory(), _disk(folder or Path.cwd())]


def _python() -> Row:
    version = platform.python_version_tuple()
    supported = PYTHONS[0] <= (int(version[0]), int(version[1])) <= PYTHONS[1]
    span = " to ".join(".".join(map(str, bound)) for bound in PYTHONS)
    why = f"{platform.system()} {platform.machine()}" if supported else f"supported are {span}"
    return Row("python", supported, platform.python_version(), why, required=True)


def _load(module: str) -> ModuleType | str:
    """The module, or in one line why it does not load."""
    try:
        return importlib.import_module(module)
    except Exception as error:  # noqa: BLE001  a broken installation raises anything, and this is where it is looked at
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _distribution(name: str, module: str, use: str, *, extra: str | None = None, required: bool = False) -> Row:
    """A package, by whether it is installed; a required one is also loaded. Optional ones are slow to load and many."""
    version = _version(name)
    if version is None:
        return Row(name, False, None, f"{use}: not installed; {_remedy(name, extra)}", required)
    if required and isinstance(loaded := _load(module), str):
        return Row(name, False, version, f"does not load: {loaded}", required)
    return Row(name, True, version, use, required)


def _remedy(name: str, extra: str | None) -> str:
    return f"pip install 'rlplatform[{extra}]'" if extra else f"pip install {name}"


def _torch() -> Row:
    row = _distribution("torch", "torch", "networks", required=True)
    if not row.active:
        return row
    import torch

    bf16 = _bf16_flags()
    matrix = f"bfloat16 in hardware ({', '.join(bf16)})" if bf16 else "bfloat16 in software only, slow"
    return Row("torch", True, torch.__version__, f"{torch.get_num_threads()} threads; {matrix}", required=True)


def _bf16_flags() -> list[str]:
    """The CPU's instructions for bfloat16 products, by their names in /proc/cpuinfo (x86 and ARM)."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return []
    flags = {flag for line in text.splitlines() if line.startswith(("flags", "Features")) for flag in line.split()}
    return sorted(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def _core() -> Row:
    module = _load("rlplatform._core")
    if isinstance(module, str):
        why = f"the C++ extension does not load: {module}; install rlplatform again"
        return Row("_core", False, None, why, required=True)
    return Row(
        "_core", True, _version("rlplatform"), f"replay, environments, returns; {module.build()['compiler']}", True
    )


def _gpu() -> Row:
    """What torch sees, whether or not our own kernels were built."""
    torch = _load("torch")
    if isinstance(torch, str):
        return Row("GPU", False, None, "torch does not load")
    if torch.version.cuda is None:
        return Row("GPU", False, None, "this torch was built for the CPU only")
    if not torch.cuda.is_available():
        return Row(
            "GPU",
            False,
            f"CUDA {torch.version.cuda}",
            "torch finds no CUDA device: none there, or its driver is too old",
        )
    names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    return Row("GPU", True, f"CUDA {torch.version.cuda}", names)


def _cuda() -> Row:
    """Our kernels: built, loadable, with a device. Their absence costs nothing on a machine without a GPU."""
    if importlib.util.find_spec("rlplatform._cuda") is None:
        core = _load("rlplatform._core")
        built = "unknown, since _core does not load" if isinstance(core, str) else core.build()["cuda"]
        remedy = "with nvcc on PATH: pip install . -C cmake.define.RLP_CUDA=ON"
        return Row("_cuda", False, None, f"GPU kernels not built ({built.removeprefix('no: ')}); {remedy}")
    module = _load("rlplatform._cuda")
    if isinstance(module, str):
        return Row("_cuda", False, None, f"GPU kernels built, but they do not load: {module}")
    status = module.status()
    version = f"CUDA {_cuda_version(status['runtime'])}"
    if status["driver"] == 0:
        return Row("_cuda", False, version, "GPU kernels built; no NVIDIA driver on this machine")
    if status["devices"] == 0:
        driver = _cuda_version(status["driver"])
        return Row(
            "_cuda",
            False,
            version,
            f"GPU kernels built; the driver (CUDA {driver}) offers no device: {status['message']}",
        )
    return Row("_cuda", True, version, f"GPU kernels, {status['devices']} device(s)")


def _cuda_version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _ale() -> Row:
    row = _distribution("ale-py", "ale_py", "Atari", required=True)
    if not row.active:
        return row
    from ale_py import roms

    games = len(roms.get_all_rom_ids())
    path = roms.get_rom_path("pong") if games else None
    if path is None or not Path(path).is_file():
        return Row(
            "ale-py", False, row.version, "Atari: the ROMs are missing from the package; install ale-py again", True
        )
    return Row("ale-py", True, row.version, f"Atari, ROMs of {games} games", True)


def _cores() -> Row:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return _amount(
        "CPU", usable >= 2, f"{usable} of {os.cpu_count()} cores usable", "actors and the learner will share one core"
    )


def _memory() -> Row:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES") / GIB
    except (AttributeError, OSError, ValueError):
        return Row("memory", True, None, "the system does not say how much there is")
    less = f"less than {ENOUGH_MEMORY_GIB:.0f} GiB is tight for 100,000 Atari steps"
    return _amount("memory", total >= ENOUGH_MEMORY_GIB, f"{total:.1f} GiB, {free:.1f} GiB untouched", less)


def _disk(folder: Path) -> Row:
    free = shutil.disk_usage(folder).free / GIB
    less = f"less than {ENOUGH_DISK_GIB:.0f} GiB is tight for a run of 100,000 Atari steps"
    return _amount("disk", free >= ENOUGH_DISK_GIB, f"{free:.1f} GiB free in {folder}", less)


def _amount(part: str, enough: bool, amount: str, otherwise: str) -> Row:
    return Row(part, enough, None, amount if enough else f"{amount}: {otherwise}")
