"""Who may import whom. Layers are source folders; __main__, cli*, experiment, runconfig and what runs many runs sit on top and may
see everything."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

LAYERS = {  # who: what of ours it may import
    "rlplatform/techniques": {
        "rlplatform.techniques",
        "rlplatform.types",
        "rlplatform.streams",
        "rlplatform.checked",
        "rlplatform._core",
    },
    "rlplatform": {"rlplatform"},
    "envs": {"rlplatform", "rlplatform.envs"},
    "agents": {"rlplatform", "rlplatform.agents"},
    "evaluation": {"rlplatform", "rlplatform.agents", "rlplatform.envs", "rlplatform.evaluation"},
    "tests/reference": set(),
}
UPPER = {"rlplatform.agents", "rlplatform.envs", "rlplatform.evaluation"}
TOP = {
    "rlplatform/__main__.py",
    "rlplatform/cli.py",
    "rlplatform/cli_common.py",
    "rlplatform/cli_grid.py",
    "rlplatform/experiment.py",
    "rlplatform/reproduce.py",
    "rlplatform/runconfig.py",
    *(f"rlplatform/grid/{name}.py" for name in ("__init__", "cells", "child", "cluster", "drive", "pool")),
    *(f"rlplatform/sweep/{name}.py" for name in ("__init__", "book", "confirm", "schema", "summary", "trial", "tune")),
    "rlplatform/__init__.py",
}  # __init__: lazily
ABOVE = {
    "rlplatform.__main__",
    "rlplatform.cli",
    "rlplatform.cli_common",
    "rlplatform.cli_grid",
    "rlplatform.experiment",
    "rlplatform.grid",
    "rlplatform.reproduce",
    "rlplatform.runconfig",
    "rlplatform.sweep",
}  # who below imports one of these closes a circle
MAY_IMPORT_RAY = {
    "rlplatform/workers/ray.py",
    "rlplatform/grid/cluster.py",
    "rlplatform/sweep/tune.py",
    "evaluation/bench/ray.py",  # measures beside bare Ray
}


def inside(module, package):
    return module == package or module.startswith(package + ".")


def allowed(module, layer):
    """Whether a file of this layer may import this module of ours."""
    lent_upper = any(inside(module, package) for package in (UPPER | ABOVE) - LAYERS[layer])
    return any(inside(module, package) for package in LAYERS[layer]) and not lent_upper


def imports(source):
    """Absolute names of all modules imported anywhere in a source text; for `from a import b` both a and a.b."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute: a mounted folder has two places"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(source):
    return {module for module in imports(source) if inside(module, "rlplatform")}


def files(layer):
    """Sources of a layer; rglob does not follow the links that an editable build lays."""
    inner = [other for other in LAYERS if other.startswith(layer + "/")]
    for path in sorted((ROOT / layer).rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if name not in TOP and not any(name.startswith(other + "/") for other in inner):
            yield name, path.read_text()


def forbidden(layer, source):
    # `from rlplatform import agents` imports "rlplatform", which all may, and "rlplatform.agents", which is judged
    return sorted(module for module in ours(source) if module != "rlplatform" and not allowed(module, layer))


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_go_one_way(layer):
    sources = dict(files(layer))
    assert sources, "nothing was looked at"
    assert {name: bad for name, source in sources.items() if (bad := forbidden(layer, source))} == {}


@pytest.mark.parametrize(
    ("layer", "planted"),
    [
        ("agents", "from rlplatform.envs import make"),
        ("agents", "def f():\n    from rlplatform import evaluation"),
        ("envs", "import rlplatform.agents.spr"),
        ("envs", "from rlplatform.experiment import train"),
        ("rlplatform", "from rlplatform.agents import AGENTS"),
        ("rlplatform", "from rlplatform import cli"),
        ("rlplatform/techniques", "from rlplatform.learner import Learner"),
        ("evaluation", "from rlplatform.cli import app"),
        ("tests/reference", "import rlplatform.returns"),
    ],
)
def test_a_planted_import_is_found(layer, planted):
    assert forbidden(layer, planted)


def test_only_the_cluster_modules_import_ray():
    users = {
        path.relative_to(ROOT).as_posix()
        for folder in ("rlplatform", "agents", "envs", "evaluation")
        for path in (ROOT / folder).rglob("*.py")
        if any(inside(module, "ray") for module in imports(path.read_text()))
    }
    assert users <= MAY_IMPORT_RAY


def loaded_by(statement, tmp_path):
    """Names of the modules that a fresh interpreter holds after a statement, run far from the checkout."""
    code = f"{statement}; import sys; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    return set(run.stdout.split())


@pytest.mark.parametrize("statement", ["import rlplatform", "import rlplatform.evaluation.stats"])
def test_needs_neither_torch_nor_ray(statement, tmp_path):
    loaded = loaded_by(statement, tmp_path)
    assert "rlplatform" in loaded
    assert not loaded & {"torch", "ray", "gymnasium", "ale_py", "matplotlib"}


@pytest.mark.parametrize("folder", ["agents", "envs", "evaluation"])
def test_a_mounted_folder_has_one_name(folder):
    """From the root of a checkout `import agents` would find the folder and load every class a second time."""
    run = subprocess.run(
        [sys.executable, "-c", f"import {folder}"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert run.returncode != 0
    assert f"import rlplatform.{folder}" in run.stderr


@pytest.mark.parametrize("extension", ["cpp", "cuda"])
def test_python_is_known_to_the_bindings_alone(extension):
    suffixes = {".hpp", ".cpp"} if extension == "cpp" else {".cuh", ".cu"}
    sources = {
        path.relative_to(ROOT).as_posix(): path.read_text()
        for path in sorted((ROOT / "csrc").rglob("*"))
        if path.suffix in suffixes and "bindings" not in path.parts
    }
    assert sources
    assert [name for name, text in sources.items() if "py::" in text or "pybind11" in text or "Python.h" in text] == []
