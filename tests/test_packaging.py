"""What an installation holds, and what a build from these sources would."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import rlplatform

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EDITABLE = Path(rlplatform.__file__).is_relative_to(ROOT)


def installed_files():
    return sorted(path.as_posix() for path in importlib.metadata.files("rlplatform"))


def sources(*folders):
    """Tracked or not, what git does not ignore: names below the root."""
    listed = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "--", *folders]
    run = subprocess.run(listed, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        pytest.skip("not a git checkout")
    return [name for name in run.stdout.splitlines() if (ROOT / name).is_file()]


def test_nothing_but_our_name_reaches_site_packages():
    """`agents` and `envs` are names that others use, too: pip would merge the folders without a word."""
    tops = {name.split("/")[0] for name in installed_files() if not name.startswith("../")}
    allowed = r"rlplatform|rlplatform-[\d.]+\.dist-info" + (r"|_editable_\w+\.(py|pth)|__pycache__" if EDITABLE else "")
    assert {top for top in tops if not re.fullmatch(allowed, top)} == set()
    assert "rlplatform" in tops


@pytest.mark.skipif(EDITABLE, reason="an editable installation holds no sources; CI installs the wheel")
def test_the_wheel_holds_each_source_once():
    expected = {name for name in sources("rlplatform") if not name.endswith("/.gitkeep")}
    expected |= {f"rlplatform/{name}" for name in sources("agents", "envs", "evaluation")}
    held = [name for name in installed_files() if name.startswith("rlplatform/") and "__pycache__" not in name]
    assert len(held) == len(set(held))
    extensions = {name for name in held if re.fullmatch(r"rlplatform/_(core|cuda)\..*\.(so|pyd|dylib)", name)}
    assert set(held) - extensions == expected
    assert sum(name.startswith("rlplatform/_core.") for name in extensions) == 1


@pytest.mark.parametrize("name", ["py.typed", "_core.pyi", "agents/presets", "envs/suites"])
def test_data_that_is_read_at_run_time_is_installed(name):
    from importlib.resources import files

    found = (
        files("rlplatform").joinpath(name)
        if "/" not in name
        else files(f"rlplatform.{name.split('/')[0]}") / name.split("/")[1]
    )
    assert found.is_file() or any(child.name.endswith(".yaml") for child in found.iterdir())


def test_the_mounted_folders_are_those_of_the_tree():
    table = PROJECT["tool"]["scikit-build"]["wheel"]["packages"]
    assert table == {"rlplatform": "rlplatform"} | {
        f"rlplatform/{part}": part for part in ("agents", "envs", "evaluation")
    }
    for target in table.values():
        assert (ROOT / target / "__init__.py").is_file()


def test_metadata():
    metadata = importlib.metadata.metadata("rlplatform")
    assert metadata["Version"] == PROJECT["project"]["version"] == rlplatform.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert set(metadata.get_all("Provides-Extra")) == {"cluster", "dmc", "throughput", "wandb", "video", "test"}
    assert metadata["License-File"] == "LICENSE"
    assert "Apache License" in (ROOT / "LICENSE").read_text()


def test_heavy_packages_are_extras():
    """A light install trains on Atari; what brings a hundred megabytes for another purpose is asked for."""
    light = [requirement for requirement in importlib.metadata.requires("rlplatform") if "extra ==" not in requirement]
    names = {re.match(r"[\w.-]+", requirement)[0].lower() for requirement in light}
    assert names == {
        "numpy", "torch", "gymnasium", "ale-py", "omegaconf", "typer", "rich", "tensorboard", "matplotlib",
        "pillow",
    }  # fmt: skip


OF_AN_EXTRA = {  # modules that are nothing without it: whoever needs them imports them there, and only then
    "rlplatform/workers/ray.py": "ray",
    "evaluation/bench/ray.py": "ray",
    "envs/simulator.py": "mujoco",
    "envs/mujoco_gym.py": "mujoco",
    "envs/painting.py": "mujoco",
}


def test_what_is_imported_is_declared():
    """A package that only comes along with another one goes missing with it. What an extra brings is imported where used."""
    distribution = {"PIL": "pillow", "ale_py": "ale-py"}
    light = {re.match(r"[\w.-]+", requirement)[0] for requirement in PROJECT["project"]["dependencies"]}
    extras = {
        re.match(r"[\w.-]+", each)[0]
        for extra in PROJECT["project"]["optional-dependencies"].values()
        for each in extra
    }
    assert set(OF_AN_EXTRA.values()) <= extras
    imported = set()
    for name in sources("rlplatform", "agents", "envs", "evaluation"):
        if not name.endswith(".py"):
            continue
        here = set()
        for node in ast.parse((ROOT / name).read_text()).body:
            if isinstance(node, ast.Import):
                here |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                here.add(node.module.split(".")[0])
        imported |= here - {OF_AN_EXTRA.get(name)}
    foreign = {distribution.get(name, name) for name in imported - {"rlplatform"} - sys.stdlib_module_names}
    assert {"numpy", "torch"} <= foreign
    assert foreign <= light


def test_the_console_script_runs(tmp_path):
    script = Path(sys.executable).with_name("rlplatform")
    run = subprocess.run([script, "--help"], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    for verb in ("train", "evaluate", "resume", "config", "list", "doctor", "bench"):
        assert verb in run.stdout
