"""Where a number was made: versions, commit, machine. Reads the system, changes nothing, never fails for want of a fact: what
cannot be found out is None."""

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

PACKAGES = ("numpy", "torch", "ale-py", "gymnasium", "dm-control", "mujoco", "envpool", "ray")
Facts = dict[str, object]  # JSON: nested dictionaries of str, int, float, bool, list, None


def provenance(task: str | None = None) -> Facts:
    """All of it, with the time of the call as `started`. For task "atari.../<Game>" also the MD5 of the ROM that will be played."""
    facts: Facts = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "rlplatform": importlib.metadata.version("rlplatform"),
        "git": git(),
        "packages": packages(),
        "machine": machine(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }
    if task is not None and task.startswith("atari"):  # "atari/", "atari57-mrq/"
        facts["rom_md5"] = rom_md5(task.rpartition("/")[2])
    return facts


def packages() -> dict[str, str | None]:
    """Versions of what a result may depend on; None where it is not installed."""
    return {name: _version(name) for name in PACKAGES}


def git() -> Facts | None:
    """Commit of the checkout that this package runs from, and whether tracked files differ from it; None when installed."""
    root = Path(__file__).resolve().parents[1]
    top = _git(root, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != root:  # an environment may lie inside somebody else's repository
        return None
    changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    return {"commit": _git(root, "rev-parse", "HEAD"), "dirty": None if changed is None else bool(changed)}


def machine() -> Facts:
    """The hardware, and how much of it this process may use. What every benchmark's result carries."""
    facts: Facts = {
        "os": platform.platform(),
        "python": platform.python_version(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": _memory_gib(),
        "torch_threads": None,
        "gpus": [],
        "cuda": None,
    }
    if importlib.util.find_spec("torch") is not None:
        import torch  # slow to import, and a benchmark of the replay alone must not need it

        facts["torch_threads"] = torch.get_num_threads()
        facts["cuda"] = torch.version.cuda
        facts["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return facts


def rom_md5(game: str) -> str | None:
    """MD5 of the ROM that ale-py loads for "Pong", "BankHeist", ...; None without ale-py or for a name it does not know."""
    if importlib.util.find_spec("ale_py") is None:
        return None
    from ale_py import roms  # optional

    name = re.sub(r"(?<!^)(?=[A-Z])", "_", game).lower()
    path = roms.get_rom_path(name) if name in roms.get_all_rom_ids() else None
    return None if path is None else hashlib.md5(Path(path).read_bytes(), usedforsecurity=False).hexdigest()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(root: Path, *arguments: str) -> str | None:
    try:
        command = ["git", "-C", str(root), *arguments]
        run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return run.stdout.strip()


def _cpu_model() -> str | None:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists() and (found := re.search(r"^model name\s*: (.*)$", cpuinfo.read_text(), re.MULTILINE)):
        return found[1].strip()
    return platform.processor() or None


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, OSError, ValueError):
        return None
