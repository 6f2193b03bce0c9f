import hashlib
import json
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import ale_py
import numpy as np
import torch

import rlplatform.provenance as module
from rlplatform.provenance import git, machine, packages, provenance, rom_md5


def test_all_of_it_is_json_and_names_what_runs() -> None:
    facts = json.loads(json.dumps(provenance("atari/Pong")))
    assert facts["packages"]["numpy"] == np.__version__
    assert facts["packages"]["torch"] == torch.__version__
    assert facts["packages"]["ale-py"] == ale_py.__version__
    assert facts["machine"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert facts["machine"]["cores"] >= facts["machine"]["usable_cores"] >= 1
    assert facts["machine"]["torch_threads"] == torch.get_num_threads()
    assert facts["machine"]["memory_gib"] > 0.1
    assert datetime.fromisoformat(facts["started"]).tzinfo is not None
    assert facts["rom_md5"] == rom_md5("Pong")
    assert "rom_md5" not in provenance("catch")


def test_rom_md5_is_that_of_the_file_ale_loads() -> None:
    for game, file in (
        ("Pong", "pong"),
        ("BankHeist", "bank_heist"),
        ("UpNDown", "up_n_down"),
        ("KungFuMaster", "kung_fu_master"),
    ):
        rom = Path(ale_py.roms.get_rom_path(file)).read_bytes()
        assert rom_md5(game) == hashlib.md5(rom, usedforsecurity=False).hexdigest()
    assert rom_md5("NoSuchGame") is None


def test_a_package_that_is_missing_is_none(monkeypatch) -> None:
    monkeypatch.setattr(module, "PACKAGES", ("numpy", "no-such-package"))
    assert packages() == {"numpy": np.__version__, "no-such-package": None}


def test_git_of_a_checkout_and_of_an_installation_inside_anothers(tmp_path, monkeypatch) -> None:
    def command(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(
            ["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    file = tmp_path / "rlplatform" / "provenance.py"
    file.parent.mkdir()
    file.write_text("one")
    monkeypatch.setattr(module, "__file__", str(file))
    assert git() is None  # no repository
    command("init", "-q")
    command("add", ".")
    command("commit", "-q", "-m", "one")
    commit = command("rev-parse", "HEAD").strip()
    assert re.fullmatch("[0-9a-f]{40}", commit)
    (tmp_path / "untracked").write_text("no part of the code")
    assert git() == {"commit": commit, "dirty": False}
    file.write_text("two")
    assert git() == {"commit": commit, "dirty": True}
    monkeypatch.setattr(module, "__file__", str(tmp_path / "venv" / "rlplatform" / "provenance.py"))
    (tmp_path / "venv").mkdir()
    assert git() is None  # the repository around it is not ours


def test_machine_needs_no_torch() -> None:
    code = "import sys, rlplatform.provenance; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-P", "-c", code], check=True)
    assert {"os", "cpu", "gpus", "cuda"} <= set(machine())
