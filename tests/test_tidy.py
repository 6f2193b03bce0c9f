import csv
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlplatform.evaluation.tidy import Record, read_scores


def written(folder: Path, text: str | bytes, name: str = "scores.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_tidy(tmp_path) -> None:
    path = written(
        tmp_path,
        "\ufeffgame,algorithm,seed,score,env_step,source\nPong, der ,0,-12.5,400000,x\nPong,der,1,3e0,400000,x\n",
    )
    assert read_scores(path) == [
        Record("Pong", -12.5, "der", run="0", step=400_000),
        Record("Pong", 3.0, "der", run="1", step=400_000),
    ]


def test_a_table_of_means(tmp_path) -> None:
    text = (
        "benchmark,task,agent,steps,mean,ci_low,ci_high,std,n_runs\ngym,Ant,MR.Q,100000,2800.692,2055.853,3519.54,,10\n"
    )
    (record,) = read_scores(written(tmp_path, text))
    assert record == Record("Ant", 2800.692, "MR.Q", "gym", None, 100_000, 2055.853, 3519.54, None, 10)


def test_wide_either_way_and_ragged(tmp_path) -> None:
    by_task = read_scores(written(tmp_path, "task,a,b\nPong,1,2\nBoxing,3,\n"))
    assert by_task == [Record("Pong", 1.0, run="a"), Record("Pong", 2.0, run="b"), Record("Boxing", 3.0, run="a")]
    by_run = read_scores(written(tmp_path, "seed,agent,Pong,Boxing\n0,der,1,3\n0,spr,2,\n"))
    assert by_run == [
        Record("Pong", 1.0, "der", run="0"), Record("Boxing", 3.0, "der", run="0"), Record("Pong", 2.0, "spr", run="0"),
    ]  # fmt: skip


def test_json_as_rliable_has_it_and_by_task(tmp_path) -> None:
    matrix = {"der": [[1, 2.5], [3, 4]], "tasks": ["Pong", "Boxing"]}
    records = read_scores(written(tmp_path, json.dumps(matrix), "a.json"))
    assert [(r.agent, r.task, r.run, r.score) for r in records] == [
        ("der", "Pong", "0", 1.0), ("der", "Boxing", "0", 2.5), ("der", "Pong", "1", 3.0), ("der", "Boxing", "1", 4.0),
    ]  # fmt: skip
    by_task = {"der": {"Pong": [1, 2, 3], "Boxing": [4]}}
    records = read_scores(written(tmp_path, json.dumps(by_task), "b.json"))
    assert [(r.task, r.run, r.score) for r in records] == [("Pong", "0", 1.0), ("Pong", "1", 2.0), ("Pong", "2", 3.0), ("Boxing", "0", 4.0)]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is empty"),
        ("task,score\n", "there is no score in it"),
        ("a,b\n1,2\n", "line 1: neither a tidy header .* nor a wide one .*'a,b'"),
        ("task,score\nPong,x\n", "line 2, column 2: not a finite number: 'x'"),
        ("task,score\n\nPong,1\nBoxing,\n", "line 4, column 2: not a finite number: ''"),
        ("task,score\nPong,nan\n", "line 2, column 2: not a finite number: 'nan'"),
        ("task,score\nPong,-inf\n", "line 2, column 2: not a finite number"),
        ("score,task\n1,\n", "line 2, column 2: the task is empty"),
        ("task,score,step\nPong,1,2.5\n", "line 2, column 3: not a whole number: '2.5'"),
        ("task,score,step\nPong,1,-4\n", "line 2, column 3: not a whole number: '-4'"),
        ("task,score,low\nPong,1,?\n", r"line 2, column 3: not a finite number: '\?'"),
        ("task,score,wat\nPong,1,2\n", "line 1, column 3: unknown column 'wat'"),
        ("task,score,game\nPong,1,2\n", "line 1, column 3: the column 'game' is there twice"),
        ("task,score\nPong,1,2\n", "line 2, column 3: 3 cells in the row, 2 in the header"),
        ("task,score\nPong\n", "line 2, column 2: 1 cells in the row, 2 in the header"),
        ("task,score,run\nPong,1,0\nPong,2,0\n", "line 3, column 3: the same run as in line 2"),
        ('task,score\n"Pong,1\n', "line 2: "),
        ('task,score\n"Po"ng,1\n', "line 2: "),
        ("task\nPong\n", "line 1, column 2: a wide file has a column for each run, this has none"),
        ("task,a\nPong,1\nPong,2\n", "line 3, column 1: 'Pong' is there twice, first in line 2"),
        ("task,a\n,1\n", "line 2, column 1: the task is empty"),
        ("run,agent,Pong\n0,der,one\n", "line 2, column 3: not a finite number: 'one'"),
        ("task,a,a\nPong,1,2\n", "line 1, column 3: the column 'a' is there twice"),
        (b"task,score\nPong,\xff1\n", "not text: byte 16 is not UTF-8"),
    ],
)
def test_a_malformed_csv_is_refused_by_line_and_column(tmp_path, text, message) -> None:
    with pytest.raises(ValueError, match="scores.csv" + (", " if message.startswith("line") else ": ") + message):
        read_scores(written(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"der": [\n', "line 2, column 1: Expecting value"),
        ("[1]", "line 1, column 1: expected {agent: runs x tasks}, got list"),
        ("{}", "there is no score in it"),
        ('{"der": [[1, 2]]}', 'line 1, column 9: a matrix needs the names of its columns, as "tasks"'),
        ('{"tasks": ["a", "b"],\n "der": [[1, 2],\n  [3]]}', "line 3, column 3: 1 scores in the run, 2 tasks"),
        ('{"tasks": ["a", "b"],\n "der": [[1, 2],\n  [3, "4"]]}', "line 3, column 7: not a finite number: '4'"),
        ('{"tasks": ["a", "b"],\n "der": [[1, NaN]]}', "line 2, column 14: not a finite number: nan"),
        ('{"tasks": ["a"], "der": [[true]]}', "line 1, column 27: not a finite number: True"),
        ('{"tasks": ["a", "a"], "der": [[1, 2]]}', "line 1, column 11: a task is named twice"),
        ('{"tasks": "a", "der": [[1]]}', "line 1, column 11: tasks must be a list of names"),
        ('{"der": {"a": [1],\n "b": [1, null]}}', "line 2, column 11: not a finite number: None"),
        ('{"der": {"a": 1}}', "line 1, column 15: expected a list of scores"),
        ('{"der": 3}', "line 1, column 9: expected runs x tasks"),
        ('{"der": {"a": [1], "a": [2]}}', "the key 'a' is there twice"),
    ],
)
def test_a_malformed_json_is_refused_by_line_and_column(tmp_path, text, message) -> None:
    with pytest.raises(ValueError) as caught:
        read_scores(written(tmp_path, text, "scores.json"))
    assert message in str(caught.value)
    assert "scores.json" in str(caught.value)


def test_other_files_are_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="scores are read from .csv and .json"):
        read_scores(written(tmp_path, "x", "scores.pkl"))


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=8)


@given(
    rows=st.lists(st.lists(CELLS, min_size=1, max_size=4), max_size=5),
    header=st.sampled_from(["task,score", "task,a,b", "run,Pong", ""]),
)
def test_whatever_is_in_a_file_it_is_read_or_refused_by_name(tmp_path_factory, rows, header) -> None:
    path = tmp_path_factory.mktemp("any") / "scores.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        file.write(header + "\n")
        csv.writer(file).writerows(rows)
    try:
        assert all(record.score == record.score for record in read_scores(path))
    except ValueError as error:
        assert str(path) in str(error)  # noqa: PT017  # either is right
