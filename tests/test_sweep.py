"""Sweeps: what a sweep.yaml may say, the book, trials from rung to rung, what a report says, and real ones on Ray, killed."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from rich.console import Console
from typer.testing import CliRunner

from rlplatform.cli import EXIT_FAILED, app
from rlplatform.cli_grid import grid_table
from rlplatform.evaluation.sweep_report import held_out_csv, to_markdown, trials_csv, write
from rlplatform.evaluation.sweeps import BASELINE, Candidate, Found, Rung, Score, Trial, gap, ranked, score, verdicts
from rlplatform.experiment import RunCost
from rlplatform.grid.cells import Needs
from rlplatform.grid.drive import survey
from rlplatform.rundir import RunDirError
from rlplatform.sweep.book import Book, read_trial
from rlplatform.sweep.confirm import best, candidates, cells, held_out
from rlplatform.sweep.schema import Param, Rungs, check, configure, identity, overrides_of, parse, read_sweep
from rlplatform.sweep.trial import advance, cells_of, most, normalise, score_at

SMALL = ["eval.episodes=2", "log_every=50", "agent.hidden=8", "agent.replay_ratio=0.1", "agent.min_replay=40"]
YAML = {
    "agent": "c51", "suite": "catch", "steps": 200, "seeds": 2, "trials": 4, "startup": 2, "overrides": SMALL,
    "space": {"agent.learning_rate": {"type": "log", "low": 1e-4, "high": 1e-2}, "agent.n": {"type": "int", "low": 1, "high": 5}},
    "rungs": {"first": 100, "factor": 2}, "confirm": {"top": 1, "seeds": 2},
}  # fmt: skip
LIMIT = 600.0


def sweep_of(**changes):
    return check(parse({**YAML, **changes}, "small"))


def yaml_of(sweep):
    return OmegaConf.to_yaml(OmegaConf.create(sweep))


def trial_of(number, value, state="complete", steps=(100, 200), **params):
    scores = {"catch": [value, value]}
    rungs = tuple(Rung(step, score(scores), scores) for step in steps)
    return Trial(number, {"agent.learning_rate": 1e-3, "agent.n": 1, **params}, state, rungs)


# sweep.yaml


def test_a_sweep_as_it_is_read(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "agent: c51\nsuite: control\ntasks: [CartPole]\nspace:\n  agent:\n    learning_rate: {type: log, low: 1e-4, high: 1e-2}\n"
        "  agent.n: {type: int, low: 1, high: 5}\n  agent.dtype: {type: choice, choices: [float32, bfloat16]}\n"
    )
    sweep = read_sweep(file)
    assert sweep.name == "mine"
    assert sweep.space["agent.learning_rate"] == Param("log", 1e-4, 1e-2)
    assert sweep.space["agent.dtype"].choices == ("float32", "bfloat16")
    assert (sweep.tasks, sweep.steps) == (("control/CartPole",), 100_000)
    assert sweep.milestones == [100_000]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trails": 3}, "unknown key 'trails' (did you mean 'trials'?)"),
        ({"rungs": {"fist": 3}}, "did you mean 'rungs.first'"),
        ({"trials": "many"}, "trials"),
        ({"trials": 0}, "trials must be >= 1, got 0"),
        ({"agent": "c15"}, "did you mean c51"),
        ({"suite": "cacth"}, "did you mean 'catch'"),
        ({"tasks": ["cath"]}, "did you mean 'catch'"),
        ({"space": {}}, "no value for space"),
        ({"space": {"agent.learning_rat": {"type": "float", "low": 0, "high": 1}}}, "did you mean 'agent.learning_rate'"),
        ({"space": {"learning_rate": {"type": "log", "low": 1e-4, "high": 1}}}, "no field 'learning_rate' (did you mean 'agent.learning_rate'?)"),
        ({"space": {"agent.reset": {"type": "float", "low": 0, "high": 1}}}, "inside it are agent.reset."),
        ({"space": {"seed": {"type": "int", "low": 0, "high": 1}}}, "seed is set by the sweep's seeds"),
        ({"space": {"agent.gamma": {"type": "float", "low": 0.9, "high": 1.5}}}, "agent.gamma = 1.5 is refused: gamma must be in [0, 1]"),
        ({"space": {"agent.gamma": {"type": "float", "low": 0.9, "high": 0.8}}}, "takes low < high"),
        ({"space": {"agent.gamma": {"type": "log", "low": 0, "high": 0.8}}}, "low must be > 0 on a logarithmic scale"),
        ({"space": {"agent.gamma": {"type": "flaot", "low": 0, "high": 0.8}}}, "did you mean 'float'"),
        ({"space": {"agent.gamma": {"type": "float", "low": 0, "hihg": 0.8}}}, "did you mean 'high'"),
        ({"space": {"agent.gamma": {"type": "float", "low": 0, "high": ".nan"}}}, "high must be"),
        ({"space": {"agent.gamma": 3}}, "expected a type and its bounds"),
        ({"space": {"agent.n": {"type": "float", "low": 1, "high": 3}}}, "agent.n is a whole number"),
        ({"space": {"agent.n": {"type": "int", "low": 1, "high": 3.5}}}, "bounds of an int are whole"),
        ({"space": {"agent.n": {"type": "int", "low": 0, "high": 3}}}, "agent.n = 0 is refused: n must be >= 1"),
        ({"space": {"agent.encoder": {"type": "int", "low": 0, "high": 3}}}, "only a choice can be made of it"),
        ({"space": {"agent.encoder": {"type": "choice", "choices": ["flatten", "resnet"]}}}, "'resnet' is refused: encoder must be one of"),
        ({"space": {"agent.encoder": {"type": "choice", "choices": ["flatten"]}}}, "a list of two or more"),
        ({"overrides": ["agent.bacth=3"]}, "did you mean 'agent.batch'"),
        ({"rungs": {"first": 200}}, "rungs.first is 200, but a run ends at 200"),
        ({"rungs": {"first": 10, "factor": 1}}, "rungs.factor must be >= 2"),
        ({"suite": "control", "tasks": ["CartPole", "Acrobot"]}, "CartPole, Acrobot have none: give one"),
        ({"scale": {"Pong": [0, 1]}}, "'Pong' is not among the tasks"),
        ({"scale": {"catch": [1, 1]}}, "two unlike finite scores"),
        ({"scale": 3}, "scale: expected task: [score that is 0, score that is 1], got 3"),
        ({"name": "../x"}, "name must be the name of a folder"),
    ],
)  # fmt: skip
def test_what_a_sweep_may_not_say(changes, message):
    with pytest.raises(ValueError) as refused:
        sweep_of(**changes)
    assert message in str(refused.value)


def test_refusals_of_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_text("agent: [c51\n")
    Path("list.yaml").write_text("- agent\n")
    for file, message in [
        ("no.yaml", "there is no such file"),
        ("bad.yaml", "is not YAML"),
        ("list.yaml", "expected keys"),
    ]:
        done = CliRunner().invoke(app, ["sweep", file])
        assert done.exit_code == EXIT_FAILED
        assert message in done.output
    assert not (tmp_path / "sweeps").exists()


def test_rungs():
    assert Rungs(100, 3).steps(1000) == [100, 300, 900, 1000]
    assert Rungs(100, 2).steps(400) == [100, 200, 400]
    assert Rungs().steps(400) == [400]


def test_the_configuration_of_a_run():
    sweep = sweep_of()
    config = configure(sweep, "catch", 1, {"agent.learning_rate": 2e-3, "agent.n": 4})
    assert (config.agent.learning_rate, config.agent.n, config.seed, config.steps) == (2e-3, 4, 1, 200)
    assert config.eval.every == 100  # rungs are evaluations
    assert configure(sweep, "catch", 1, {}, confirm=True).eval.every == 0
    assert overrides_of(sweep, {"a": True, "b": "x", "c": 1e-4}, confirm=True) == [*SMALL, "a=true", "b=x", "c=0.0001"]


def test_runs_ask_for_the_threads_and_actors_that_they_try(tuning):
    space = {
        **YAML["space"],
        "threads": {"type": "choice", "choices": [2, 1]},
        "actors": {"type": "int", "low": 1, "high": 3},
    }
    sweep = sweep_of(space=space, parallel=2, gpus=0.5, scale=None)
    assert most(sweep) == Needs(6, 0.5)
    assert most(sweep_of()) == Needs(1)
    held = tuning.places(sweep, {"params": {"threads": 2, "actors": 2}})
    assert held.bundles == [{"CPU": 4.0, "GPU": 0.5}] * 2


def test_scores_are_on_the_scale_of_the_sweep_or_the_suite():
    assert normalise(sweep_of(), "catch", 0.5) == 0.5
    assert normalise(sweep_of(scale={"catch": [-1, 1]}), "catch", 0.5) == 0.75
    atari = sweep_of(suite="atari100k", tasks=["Boxing", "Pong"])
    assert normalise(atari, "atari/Boxing", 12.1) == pytest.approx(1.0)


# The book


def test_the_book_survives_its_writer(tmp_path):
    sweep = sweep_of()
    book = Book(tmp_path, sweep)
    one, two = book.begin({"agent.n": 1}), book.begin({"agent.n": 2})
    assert (one.number, two.number) == (0, 1)
    rung = Rung(100, Score(0.5, 0.25, 0.75), {"catch": [0.25, 0.75]})
    book.note(0, replace(rung, step=200))
    book.note(0, rung)
    book.note(0, rung)  # said again
    book.end(0, "complete")
    with pytest.raises(RunDirError, match="in use by another process"):
        Book(tmp_path, sweep)
    book.close()
    again = Book(tmp_path, replace(sweep, trials=9, parallel=2))  # it may grow
    assert [trial.number for trial in again.of("complete")] == [0]
    assert again.trials[0].rungs == (rung, replace(rung, step=200))
    assert [trial.params for trial in again.of("running")] == [{"agent.n": 2}]
    assert again.begin({}).number == 2
    again.close()
    shutil.rmtree(tmp_path / "trials/t0001")
    third = Book(tmp_path, sweep)
    assert third.begin({}).number == 3  # another in its place, and not under the number of one that is there
    third.close()


def test_the_book_of_another_sweep_is_refused(tmp_path):
    Book(tmp_path, sweep_of()).close()
    with pytest.raises(RunDirError, match=r"holds another sweep .*high: 5.0.*high: 7.0"):
        Book(tmp_path, sweep_of(space={**YAML["space"], "agent.n": {"type": "int", "low": 1, "high": 7}}))
    assert identity(sweep_of(trials=99)) == identity(sweep_of())


def test_a_damaged_trial_is_refused_by_name(tmp_path):
    book = Book(tmp_path, sweep_of())
    book.begin({})
    book.close()
    file = tmp_path / "trials/t0000/trial.json"
    file.write_text(file.read_text()[:-5])
    with pytest.raises(RunDirError, match=r"t0000/trial.json is damaged"):
        Book(tmp_path, sweep_of())
    file.write_text("{}")
    with pytest.raises(RunDirError, match="damaged"):
        read_trial(file)


# A trial


def test_a_run_goes_from_rung_to_rung_and_comes_to_the_same_weights(tmp_path):
    sweep = sweep_of()
    params = {"agent.n": 2}
    first = advance(sweep, "catch", 0, params, tmp_path / "a", 100, "/")
    steps = [int(p.name.removeprefix("step_")) for p in (tmp_path / "a/checkpoints").glob("step_*")]
    assert steps == [100]  # stopped where it was scored
    assert not (tmp_path / "a/result.json").exists()
    before = (tmp_path / "a/evals.csv").stat().st_mtime_ns
    assert advance(sweep, "catch", 0, params, tmp_path / "a", 100, "/") == first  # nothing runs again
    assert (tmp_path / "a/evals.csv").stat().st_mtime_ns == before
    last = advance(sweep, "catch", 0, params, tmp_path / "a", 200, "/")
    assert last == json.loads((tmp_path / "a/result.json").read_text())["mean"]
    assert advance(sweep, "catch", 0, params, tmp_path / "b", 200, "/") == last
    a, b = (np.load(tmp_path / name / "checkpoints/step_0000000200/arrays.npz") for name in "ab")
    assert all(np.array_equal(a[name], b[name]) for name in a)


def test_the_evaluation_that_belongs_to_a_rung(tmp_path):
    header = "step,episode,env_seed,score,length,truncated,human_normalized\n"
    assert score_at(tmp_path, 100, last=False) is None
    (tmp_path / "evals.csv").write_text(header + "104,0,1,1.0,9,0,\n104,1,1,2.0,9,0,\n208,0,1,5.0,9,0,\n")
    assert score_at(tmp_path, 100, last=False) == 1.5  # rounds of 8 steps end beyond the rung
    assert score_at(tmp_path, 104, last=False) == 1.5
    assert score_at(tmp_path, 105, last=False) == 5.0
    assert score_at(tmp_path, 209, last=False) is None
    assert score_at(tmp_path, 200, last=True) is None  # evaluated, but not finished
    (tmp_path / "result.json").write_text("{}")
    assert score_at(tmp_path, 200, last=True) == 5.0


def test_the_score_of_a_trial_is_the_iqm_over_tasks_and_seeds():
    found = score({"a": [0.0, 1.0], "b": [2.0, 9.0]})
    assert found.point == 1.5  # the middle two of four
    assert found.low < 1.5 < found.high
    assert score({"a": [3.0]}) == Score(3.0)  # one seed has no interval


# The winner


def test_only_the_best_that_ended_are_run_again_on_seeds_that_were_not_seen(tmp_path):
    sweep = sweep_of(confirm={"top": 2, "seeds": 3})
    book = Book(tmp_path, sweep)
    for trial in (
        trial_of(0, 0.1), trial_of(1, 0.9, "stopped", (100,)), trial_of(2, 0.5), trial_of(3, 0.3), trial_of(4, 0.5)
    ):  # fmt: skip
        book.trials[trial.number] = trial
    chosen = best(book)
    assert [trial.number for trial in chosen] == [2, 4]
    assert list(held_out(sweep)) == [2, 3, 4]
    made = cells(book, chosen)
    assert len(made) == 3 * 3
    assert {cell.config.seed for cell in made} == {2, 3, 4}
    assert {cell.folder.relative_to(tmp_path).parts[1] for cell in made} == {"t0002", "t0004", BASELINE}
    assert made[0].config.eval.every == 0
    assert made[-1].config.agent.learning_rate == configure(sweep, "catch", 0, {}).agent.learning_rate
    assert candidates(book, chosen) == []
    table = Console(file=io.StringIO(), width=120)
    table.print(grid_table("catch", "held-out runs", survey(made)))
    assert all(f"{name} catch" in table.file.getvalue() for name in ("t0002", "t0004", BASELINE))  # a row each
    book.close()


def test_a_cell_of_a_sweep_is_a_command(tmp_path):
    cell = cells_of(sweep_of(), tmp_path, {"agent.n": 3}, range(1))[0]
    assert cell.command[:3] == ("train", "c51", "catch")
    assert "agent.n=3" in cell.command
    assert "eval.every=100" in cell.command
    assert cell.folder == tmp_path / "catch" / "seed_0"
    assert cell.name == f"{tmp_path.name} catch seed 0"


def candidate(name, scores, searched=None):
    return Candidate(name, {"agent.n": 1}, searched, {"catch": scores})


def found_of(*candidates, trials=(), importance=None):
    space = {"agent.learning_rate": "log, 0.0001 to 0.01", "agent.n": "int, 1 to 5"}
    return Found("s", "c51 on catch", space, frozenset({"agent.learning_rate"}), tuple(trials), (100, 200), False, importance or {}, candidates)  # fmt: skip


def test_what_the_held_out_runs_say():
    a, b = candidate("t0001", [0.9, 0.91, 0.92], Score(0.99)), candidate("t0002", [0.1, 0.11, 0.12], Score(0.95))
    base = candidate(BASELINE, [0.2, 0.9, 0.95])
    said = " ".join(verdicts(found_of(b, a, base)))
    assert said.startswith("t0001 is the best of 2 on 3 held-out seeds: 0.91")
    assert "the search saw 0.990" in said
    assert "It is above the runner-up, t0002, by +0.8" in said
    assert "Against the preset as it is, baseline, the difference is" in said
    assert "too close to call" in said
    assert "leans upwards" in said
    better = candidate(BASELINE, [1.9, 1.91, 1.92])
    assert "It is below the preset as it is, baseline, by -1.0" in " ".join(verdicts(found_of(a, better)))
    assert verdicts(found_of()) == ["No configuration was run again on held-out seeds: no winner is named."]
    assert "one seed says nothing" in " ".join(verdicts(found_of(candidate("x", [1.0]), candidate("y", [0.0]))))
    assert [one.name for one, _ in ranked([b, a])] == ["t0001", "t0002"]
    assert gap(a, b).point == pytest.approx(0.8)


def test_a_report_has_every_trial_and_every_held_out_run(tmp_path):
    rng = np.random.default_rng(0)
    trials = [
        trial_of(i, float(rng.random()), **{"agent.learning_rate": float(10 ** -rng.uniform(2, 4)), "agent.n": int(rng.integers(1, 6))})
        for i in range(4)
    ]  # fmt: skip
    trials += [trial_of(4, 0.1, "stopped", (100,)), Trial(5, trials[0].params, "failed", (), "ValueError: <b>|")]
    found = found_of(candidate("t0001", [0.5, 0.6]), candidate(BASELINE, [0.1, 0.2]), trials=trials, importance={100: {"agent.n": 0.7, "agent.learning_rate": 0.3}})  # fmt: skip
    files = write(found, tmp_path, command="rlplatform sweep s.yaml")
    assert files[0].name == "report.html"
    assert all(file.stat().st_size > 0 for file in files)
    assert {file.stem for file in (tmp_path / "figures").glob("*.png")} == {"search", "importance", "space"}
    lines = trials_csv(found).splitlines()
    assert len(lines) == 1 + 4 * 2 + 1 + 1
    assert lines[0] == "trial,state,agent.learning_rate,agent.n,agent_steps,score,low,high"
    assert lines[1].startswith(f"t0000,complete,{trials[0].params['agent.learning_rate']!r}")
    assert held_out_csv(found).splitlines()[1:] == [
        "t0001,,1,catch,0,0.5", "t0001,,1,catch,1,0.6", "baseline,,1,catch,0,0.1", "baseline,,1,catch,1,0.2"
    ]  # fmt: skip
    page = files[0].read_text()
    assert "ValueError: &lt;b&gt;|" in page
    assert "4 complete, 1 stopped, 1 failed" in to_markdown(found, {"search": "x"}, "")
    before = files[0].read_bytes()
    write(found, tmp_path, command="rlplatform sweep s.yaml")
    assert files[0].read_bytes() == before


# On Ray


@pytest.fixture(scope="module")
def tuning():
    pytest.importorskip("ray.tune")
    pytest.importorskip("optuna")
    from rlplatform.sweep import tune

    return tune


def test_without_ray_or_optuna_it_says_how_to_get_them(tmp_path, monkeypatch):
    import rlplatform.sweep

    monkeypatch.delattr(rlplatform.sweep, "tune", raising=False)
    monkeypatch.delitem(sys.modules, "rlplatform.sweep.tune", raising=False)
    monkeypatch.setitem(sys.modules, "optuna", None)
    file = tmp_path / "small.yaml"
    file.write_text(yaml_of(YAML))
    done = CliRunner().invoke(app, ["sweep", str(file), "--out", str(tmp_path)])
    assert done.exit_code == EXIT_FAILED
    assert "pip install 'rlplatform[cluster]'" in done.output
    assert not (tmp_path / "small").exists()


def test_a_dry_run_says_what_would_be_searched(tmp_path, monkeypatch):
    monkeypatch.setattr("rlplatform.cli_grid.estimate", lambda config: RunCost(1_000, 1_000.0, 5, 0, None, 1.3, 0.5))
    file = tmp_path / "small.yaml"
    file.write_text(yaml_of(YAML))
    done = CliRunner().invoke(app, ["sweep", str(file), "--out", str(tmp_path), "--dry-run"])
    assert done.exit_code == 0, done.output
    assert "4 trials of 2 keys" in done.output
    assert "agent.learning_rate: log, 0.0001 to 0.01" in done.output
    assert "scored at [100, 200] agent steps" in done.output
    assert "at most 8 runs and 4 on held-out seeds: about 6.00 hours" in done.output
    assert [path.name for path in tmp_path.iterdir()] == ["small.yaml"]


def asker_of(tuning, folder, **changes):
    book = Book(folder, sweep_of(**changes))
    return tuning.Asker(book, lambda line: None, lambda: 0), book


def result_of(step, value):
    return {
        "score": value,
        "low": value,
        "high": value,
        "scores": json.dumps({"catch": [value, value]}),
        "agent_steps": step,
    }


def test_what_is_asked_is_a_function_of_seed_number_and_what_was_told(tuning, tmp_path):
    def params(folder, count):
        asker, book = asker_of(tuning, folder, trials=6)
        given = []
        for i in range(count):
            asked = asker.suggest(f"id{i}")
            given.append(asked["params"])
            asker.on_trial_result(f"id{i}", result_of(100, asked["params"]["agent.n"] / 10))
            asker.on_trial_complete(
                f"id{i}", result_of(200, asked["params"]["agent.n"] / 5)
            )  # Tune says the last one so
        assert all(len(trial.rungs) == 2 for trial in book.of("complete"))
        assert len(book.of("complete")) >= count
        book.close()
        return given

    straight = params(tmp_path / "straight", 6)
    assert len({json.dumps(p) for p in straight}) == 6  # none twice
    assert all(1e-4 <= p["agent.learning_rate"] <= 1e-2 and 1 <= p["agent.n"] <= 5 for p in straight)
    broken = params(tmp_path / "broken", 3) + params(tmp_path / "broken", 3)
    assert broken == straight  # a new driver asks on where the killed one was


def test_what_was_under_way_goes_first_and_keeps_its_number(tuning, tmp_path):
    asker, book = asker_of(tuning, tmp_path, trials=2)
    first = asker.suggest("a")
    asker.on_trial_result("a", result_of(100, 0.5))
    book.close()
    asker, book = asker_of(tuning, tmp_path, trials=2)
    assert asker.suggest("x") == first
    assert asker.suggest("y")["number"] == 1
    assert asker.suggest("z") == "FINISHED"
    asker.on_trial_result("x", result_of(100, 0.5))
    asker.on_trial_complete("x", result_of(100, 0.5))
    assert [trial.number for trial in book.of("stopped")] == [0]
    asker.on_trial_complete("y", error=True)
    assert book.of("failed")[0].error == "its process is gone"
    assert asker.nothing_to_do
    book.close()
    more, book = asker_of(tuning, tmp_path, trials=3)  # extended
    assert not more.nothing_to_do
    assert more.suggest("b")["number"] == 2
    book.close()


def test_a_stop_of_the_sweep_leaves_trials_under_way(tuning, tmp_path):
    book = Book(tmp_path, sweep_of())
    asker = tuning.Asker(book, lambda line: None, lambda: 1)
    asker.suggest("a")
    asker.on_trial_result("a", result_of(100, 0.5))
    asker.on_trial_complete("a", result_of(100, 0.5))
    assert [trial.state for trial in book.trials.values()] == ["running"]
    book.close()


def test_a_new_scheduler_stops_what_the_old_one_would_have(tuning):
    from types import SimpleNamespace

    old = [trial_of(i, 0.1 * i, "complete" if i > 4 else "stopped", (100, 200) if i > 4 else (100,)) for i in range(10)]
    scheduler = tuning._scheduler(sweep_of(steps=400))
    tuning.replay(scheduler, old)
    decisions = []
    for value in (0.2, 0.95):
        one = SimpleNamespace(trial_id=f"new {value}")
        scheduler.on_trial_add(None, one)
        decisions.append(scheduler.on_trial_result(None, one, result_of(100, value)))
    assert decisions == ["STOP", "CONTINUE"]  # the better half of ten goes on


def test_importance_finds_the_key_that_matters(tuning):
    rng = np.random.default_rng(1)
    space = sweep_of().space
    drawn = [
        {"agent.learning_rate": float(10 ** rng.uniform(-4, -2)), "agent.n": int(rng.integers(1, 6))} for _ in range(40)
    ]
    trials = [trial_of(i, -abs(np.log10(p["agent.learning_rate"]) + 3), **p) for i, p in enumerate(drawn)]
    found = tuning.importance(trials, space, 200)
    assert sum(found.values()) == pytest.approx(1.0)
    assert found["agent.learning_rate"] > 0.7
    assert tuning.importance(trials[:9], space, 200) == {}
    assert tuning.importance(trials[:10], space, 200).keys() == space.keys()
    assert tuning.importance(trials, space, 300) == {}


def book_of(folder):
    return {file.parent.name: json.loads(file.read_text()) for file in sorted(folder.glob("trials/t*/trial.json"))}


@pytest.mark.usefixtures("tuning")
def test_a_sweep_that_is_killed_goes_on_and_grows(tmp_path):
    """SIGKILL while trials run; the same command ends it; a larger `trials` searches further; then there is nothing to do."""
    file = tmp_path / "small.yaml"
    file.write_text(yaml_of({**YAML, "trials": 2}))
    command = [sys.executable, "-m", "rlplatform", "sweep", str(file), "--out", str(tmp_path)]
    folder = tmp_path / "small"
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        end = time.monotonic() + LIMIT
        while driver.poll() is None and not any(trial["rungs"] for trial in book_of(folder).values()):
            assert time.monotonic() < end
            time.sleep(0.05)
        os.kill(driver.pid, signal.SIGKILL)
        said, _ = driver.communicate(timeout=LIMIT)
    finally:
        driver.kill()
    assert driver.returncode == -signal.SIGKILL, said
    before = book_of(folder)
    assert not (folder / "report").exists()
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT)
    assert done.returncode == 0, done.stdout + done.stderr
    after = book_of(folder)
    assert list(after) == ["t0000", "t0001"]
    assert all(after[name]["params"] == before[name]["params"] for name in before)
    assert {trial["state"] for trial in after.values()} <= {"complete", "stopped"}
    assert len(list(folder.glob("confirm/*/catch/seed_*/result.json"))) == 2 * 2  # the best, and the baseline
    assert "is the best of 1 on 2 held-out seeds" in done.stdout
    assert "t0001" in (folder / "report/report.md").read_text()
    file.write_text(yaml_of({**YAML, "trials": 3}))
    more = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT)
    assert more.returncode == 0, more.stdout + more.stderr
    assert "t0002 begins" in more.stdout
    assert "t0000 begins" not in more.stdout
    grown = book_of(folder)
    assert {name: grown[name] for name in after} == after
    again = CliRunner().invoke(app, command[3:])
    assert again.exit_code == 0, again.output
    assert "begins" not in again.output
    assert "Ray:" not in again.output
