"""`report`, `compare` and `import-references` from the command line."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rlplatform.cli import EXIT_FAILED, app
from run_files import make_run


def call(*arguments: str | Path):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed, mean in ((1, -8.0), (2, -15.0), (3, -12.0)):
        make_run(tmp_path / "runs" / f"{seed}", seed=seed, mean=mean)
    return tmp_path / "runs"


def test_the_terminal_view_stays_a_page_or_a_table(runs) -> None:
    assert call("report", runs / "1", "--against", "spr").output.startswith("# der on atari/Pong, seed 1\n")
    assert call("report", runs).output.startswith("| agent | task | seed |")


def test_several_inputs_or_a_file_are_reported_together(runs, tmp_path) -> None:
    (tmp_path / "other.csv").write_text("task,1,2,3\nPong,-3,-4,-5\n")
    done = call("report", runs, tmp_path / "other.csv", "--against", "der,spr", "--reps", "100")
    assert done.exit_code == 0, done.output
    assert done.output.startswith("# der (ours) against other, DER (Dopamine) and SPR on Pong (Atari-100k)\n")
    assert "| other | 3 | " in done.output
    assert not (tmp_path / "report").exists()


def test_files_are_written_with_out(runs, tmp_path) -> None:
    done = call("report", runs, "--against", "iris", "--out", tmp_path / "a" / "b", "--reps", "100")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "a" / "b" / "report.html").stat().st_size > 50_000
    assert "report.html and " in done.output


def test_compare_in_words_and_for_programs(runs) -> None:
    done = call("compare", runs, "--against", "bbf_rr2", "--against", "der", "--reps", "200")
    assert done.exit_code == 0, done.output
    assert "**der (ours) is below BBF (replay ratio 2): the difference in IQM is -0." in done.output
    assert done.output.count("# der") == 2
    assert "> Unlike protocols, der (ours) against BBF (replay ratio 2): no-ops at the start: 0-29 frames against 0-29 agent steps." in done.output  # fmt: skip
    (found,) = json.loads(call("compare", runs, "--against", "bbf_rr2", "--json", "--reps", "200").output)
    assert (found["verdict"], found["theirs"], found["tasks"]) == ("below", "bbf_rr2", ["Pong"])
    assert found["difference"]["high"] < 0
    (wide,) = json.loads(call("compare", runs, "--against", "der", "--json", "--margin", "9", "--reps", "200").output)
    assert wide["verdict"] == "consistent with"
    assert wide["margin"] == 9.0


def test_an_import_can_be_compared_with(runs, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("RLPLATFORM_REFERENCES", str(tmp_path / "own"))
    (tmp_path / "theirs.csv").write_text("task,agent,1,2,3\nPong,Their Agent,-15,-16,-17\n")
    done = call("import-references", tmp_path / "theirs.csv", "--licence", "CC BY-NC 4.0")
    assert done.output == "atari100k/their_agent_imported\n"
    monkeypatch.setenv("COLUMNS", "250")
    assert "CC BY-NC 4.0, imported" in call("list", "references").output
    assert (
        "Their Agent (imported)" in call("compare", runs, "--against", "their_agent_imported", "--reps", "100").output
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report"], "nothing to report: name runs"),
        (["report", "nowhere"], "nowhere: neither a folder of runs nor a file of scores"),
        (["report", "bad.csv"], "bad.csv, line 2, column 2: not a finite number: 'x'"),
        (["report", "bad.json"], "bad.json, line 1, column 2: "),
        (["report", "--against", "drr"], "no published scores of 'drr' on 'atari100k'; there are: bbf_rr2"),
        (
            ["report", "--against", "der", "--benchmark", "gym"],
            "no published scores of 'der' on 'gym'; there are: dreamerv3",
        ),
        (["compare", "good.csv"], "name what to compare with: --against bbf_rr2"),
        (["compare", "good.csv", "--against", "der", "--margin", "-1"], "a margin is a positive number, got -1.0"),
        (["compare", "good.csv", "--against", "mrq", "--benchmark", "gym"], "gym has no task 'Pong'"),
        (["import-references", "bad.csv"], "bad.csv, line 2, column 2"),
        (["import-references", "good.csv", "--unit", "miles"], "agent steps or frames, not 'miles'"),
    ],
)
def test_refusals_are_one_line_and_write_nothing(tmp_path, monkeypatch, arguments, message) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RLPLATFORM_REFERENCES", str(tmp_path / "own"))
    (tmp_path / "bad.csv").write_text("task,score\nPong,x\n")
    (tmp_path / "bad.json").write_text("{oops")
    (tmp_path / "good.csv").write_text("task,1,2,3\nPong,1,2,3\n")
    done = call(*arguments, *(["--out", "out"] if arguments[0] == "report" else []))
    assert done.exit_code == EXIT_FAILED
    assert message in done.output
    assert {path.name for path in tmp_path.iterdir()} == {"bad.csv", "bad.json", "good.csv"}
