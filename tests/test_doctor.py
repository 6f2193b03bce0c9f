import importlib
import importlib.metadata
import shutil
import types

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from rlplatform import _core, doctor


def rows(**options):
    return {row.part: row for row in doctor.diagnose(**options)}


@pytest.fixture
def broken(monkeypatch):
    """Make the import of a module raise."""
    real = importlib.import_module

    def breaking(name, error):
        def load(module, package=None):
            if module == name:
                raise error
            return real(module, package)

        monkeypatch.setattr(importlib, "import_module", load)

    return breaking


@pytest.fixture
def uninstalled(monkeypatch):
    """Make a distribution look as if it was not installed."""
    real = importlib.metadata.version

    def remove(name):
        def version(distribution):
            if distribution == name:
                raise importlib.metadata.PackageNotFoundError(name)
            return real(distribution)

        monkeypatch.setattr(importlib.metadata, "version", version)

    return remove


def test_this_installation_can_train():
    found = rows()
    assert [row.part for row in found.values() if row.required and not row.active] == []
    assert {"python", "numpy", "torch", "_core", "gymnasium", "ale-py", "tensorboard"} == {
        row.part for row in found.values() if row.required
    }
    assert found["numpy"].version == np.__version__
    assert found["torch"].version == torch.__version__
    assert f"{torch.get_num_threads()} threads" in found["torch"].why
    assert _core.build()["compiler"] in found["_core"].why
    assert found["GPU"].active == torch.cuda.is_available()
    assert all(row.why for row in found.values())


def test_the_roms_are_counted():
    from ale_py import roms

    assert f"{len(roms.get_all_rom_ids())} games" in rows()["ale-py"].why


def test_missing_roms_are_seen(monkeypatch, tmp_path):
    from ale_py import roms

    monkeypatch.setattr(roms, "get_rom_path", lambda name: tmp_path / "pong.bin")
    assert not rows()["ale-py"].active
    monkeypatch.setattr(roms, "get_all_rom_ids", list)
    assert not rows()["ale-py"].active


def test_a_required_package_that_does_not_load_says_why(broken):
    broken("tensorboard", ImportError("libfoo.so.1: cannot open\nsecond line"))
    row = rows()["tensorboard"]
    assert not row.active
    assert row.required
    assert row.version
    assert row.why == "does not load: ImportError: libfoo.so.1: cannot open"


def test_a_missing_package_names_its_extra(uninstalled):
    uninstalled("ray")
    row = rows()["ray"]
    assert not row.active
    assert not row.required
    assert row.version is None
    assert "pip install 'rlplatform[cluster]'" in row.why


def test_without_torch(uninstalled, broken):
    uninstalled("torch")
    broken("torch", ModuleNotFoundError("No module named 'torch'"))
    found = rows()
    assert not found["torch"].active
    assert found["torch"].why.endswith("not installed; pip install torch")
    assert not found["GPU"].active


def test_without_the_extension(broken):
    broken("rlplatform._core", ImportError("undefined symbol"))
    row = rows()["_core"]
    assert row.required
    assert not row.active
    assert "undefined symbol" in row.why


@pytest.mark.parametrize(
    ("status", "active", "why"),
    [
        ({"driver": 0, "devices": 0, "message": "no driver"}, False, "no NVIDIA driver"),
        (
            {"driver": 11040, "devices": 0, "message": "driver too old"},
            False,
            "CUDA 11.4) offers no device: driver too old",
        ),
        ({"driver": 13010, "devices": 2, "message": ""}, True, "2 device(s)"),
    ],
)
def test_states_of_the_cuda_module(monkeypatch, status, active, why):
    kernels = types.SimpleNamespace(status=lambda: {"runtime": 13000, **status})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(doctor, "_load", lambda name: kernels)
    row = doctor._cuda()
    assert row.active is active
    assert why in row.why
    assert row.version == "CUDA 13.0"
    assert not row.required


def test_cuda_module_not_built_or_not_loadable(monkeypatch, broken):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    row = doctor._cuda()
    assert not row.active
    assert "RLP_CUDA=ON" in row.why
    assert _core.build()["cuda"].removeprefix("no: ") in row.why
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    broken("rlplatform._cuda", ImportError("GLIBCXX_3.4.99 not found"))
    row = doctor._cuda()
    assert not row.active
    assert "GLIBCXX_3.4.99" in row.why


def test_an_unsupported_python_is_refused(monkeypatch):
    for version, supported in (("3.10.1", False), ("3.11.0", True), ("3.13.9", True), ("3.14.0", False)):
        monkeypatch.setattr(doctor.platform, "python_version_tuple", lambda version=version: tuple(version.split(".")))
        row = doctor._python()
        assert row.required
        assert row.active is supported


def test_supported_pythons_are_those_of_the_package():
    low, high = doctor.PYTHONS
    required = importlib.metadata.metadata("rlplatform")["Requires-Python"]
    assert set(required.split(",")) == {f">={low[0]}.{low[1]}", f"<{high[0]}.{high[1] + 1}"}


def test_disk_and_memory(monkeypatch, tmp_path):
    assert str(tmp_path) in rows(folder=tmp_path)["disk"].why
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: types.SimpleNamespace(free=doctor.GIB))
    disk = rows(folder=tmp_path)["disk"]
    assert not disk.active
    assert disk.why.startswith("1.0 GiB free")
    pages = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2 * doctor.GIB // 4096, "SC_AVPHYS_PAGES": doctor.GIB // 4096}
    monkeypatch.setattr(doctor.os, "sysconf", pages.__getitem__)
    memory = rows()["memory"]
    assert not memory.active
    assert memory.why.startswith("2.0 GiB, 1.0 GiB untouched: less than 4 GiB")


def test_the_command_prints_all_and_fails_where_training_cannot_work(monkeypatch, uninstalled, broken):
    from rlplatform.cli import app

    monkeypatch.setenv("COLUMNS", "300")
    uninstalled("ray")
    shown = CliRunner().invoke(app, ["doctor"])
    assert shown.exit_code == 0
    assert all(part in shown.output for part in rows())
    assert "rlplatform[cluster]" in shown.output
    broken("tensorboard", ImportError("gone"))
    shown = CliRunner().invoke(app, ["doctor"])
    assert shown.exit_code == 1
    assert "gone" in shown.output
