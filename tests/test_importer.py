import pytest

from rlplatform.evaluation import store
from rlplatform.evaluation.importer import import_references, slug
from rlplatform.evaluation.published import curve, published, source, sources

CURVES = """benchmark,task,agent,steps,mean,ci_low,ci_high,source
gym,Ant-v4,MR.Q,100000,2800.692,2055.853,3519.54,their repository
gym,Ant-v4,MR.Q,200000,4434.427,3950.103,4897.402,their repository
dmc-proprio,cup-catch,MR.Q,50000,800.5,700,900,their repository
gym,AGG-Mean,MR.Q,200000,1.4,1.3,1.5,their repository
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("RLPLATFORM_REFERENCES", str(tmp_path / "own"))
    return tmp_path / "own"


def test_means_of_a_file_that_may_not_be_shipped(tmp_path, folder) -> None:
    (tmp_path / "curves.csv").write_text(CURVES)
    before = len(sources())
    added = import_references(tmp_path / "curves.csv", reference='a "paper"', licence="CC BY-NC 4.0")
    assert added == ["gym/mrq_imported", "dmc-proprio/mrq_imported"]
    assert len(sources()) == before + 2
    ant = curve("gym", "mrq_imported", "Ant")
    assert ant == (
        store.Mean(100_000, 2800.692, 2055.853, 3519.54, None, None),
        store.Mean(200_000, 4434.427, 3950.103, 4897.402, None, None),
    )
    assert curve("dmc-proprio", "mrq_imported", "ball_in_cup-catch")[0].score == 800.5
    entry = source("gym", "mrq_imported")
    assert (entry.title, entry.reference, entry.licence, entry.runs, entry.imported) == (
        "MR.Q (imported)", 'a "paper"', "CC BY-NC 4.0", 0, True,
    )  # fmt: skip
    assert entry.source == "imported from curves.csv"
    assert curve("gym", "mrq", "Ant")[0].score == 6901.0  # what is shipped is untouched
    assert {path.name for path in folder.iterdir()} == {"curves_imported.toml", "curves_imported_tables.csv"}


def test_runs_at_several_steps(tmp_path, folder) -> None:
    rows = [f"Ant,MR.Q,{step},{seed},{step / 1000 + seed}" for step in (2000, 1000) for seed in range(3)]
    (tmp_path / "seeds.csv").write_text("\n".join(["task,agent,steps,seed,score", *rows]) + "\n")
    assert import_references(tmp_path / "seeds.csv", "gym", suffix="mine", unit="frames") == ["gym/mrq_mine"]
    assert published("gym", "mrq_mine", "Ant").tolist() == [2.0, 3.0, 4.0]
    assert published("gym", "mrq_mine", "Ant", step=1000).tolist() == [1.0, 2.0, 3.0]
    assert (source("gym", "mrq_mine").runs, source("gym", "mrq_mine").unit) == (3, "frames")


def test_without_a_benchmark_the_task_says_it(tmp_path, folder) -> None:
    (tmp_path / "own.csv").write_text("task,1,2\nPong,3,4\n")
    assert import_references(tmp_path / "own.csv") == ["atari100k/own_imported"]
    assert published("atari100k", "own_imported", "Pong").tolist() == [3.0, 4.0]


@pytest.mark.parametrize(
    ("text", "given", "message"),
    [
        (CURVES.replace("Ant-v4", "Aunt"), {}, "gym has no task 'Aunt'"),
        (CURVES, {"suffix": "../x"}, "a suffix is lower-case letters"),
        (CURVES, {"unit": "miles"}, "agent steps or frames, not 'miles'"),
        ("task,score\nchess,1\n", {}, "no benchmark None for chess; known: atari100k"),
        ("benchmark,task,score\nchess,Pong,1\n", {}, "no benchmark 'chess' for Pong"),
        ("task,run,score\nPong,0,1\nPong,,2\n", {}, "some rows name their run and some do not"),
        ("task,score\nPong,x\n", {}, "line 2, column 2"),
    ],
)
def test_what_cannot_be_imported_is_refused_and_leaves_nothing(tmp_path, folder, text, given, message) -> None:
    (tmp_path / "curves.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        import_references(tmp_path / "curves.csv", **given)
    assert not folder.exists()


def test_nothing_is_imported_over_what_is_there(tmp_path, folder) -> None:
    (tmp_path / "curves.csv").write_text(CURVES)
    import_references(tmp_path / "curves.csv")
    with pytest.raises(FileExistsError, match="dmc-proprio/mrq_imported, gym/mrq_imported is there already"):
        import_references(tmp_path / "curves.csv")
    import_references(tmp_path / "curves.csv", suffix="again")
    (tmp_path / "der.csv").write_text("task,agent,1\nPong,d,2\n")
    assert import_references(tmp_path / "der.csv", suffix="er") == ["atari100k/d_er"]


def test_names() -> None:
    assert [slug(name) for name in ("MR.Q", "TD-MPC2 (pixels)", "  ", "DrQ(ε)")] == [
        "mrq",
        "tdmpc2_pixels",
        "unnamed",
        "drq",
    ]
