import json

import pytest

from rlplatform.evaluation import protocols
from rlplatform.evaluation.published import source
from rlplatform.evaluation.runs import Run
from rlplatform.evaluation.store import benchmarks
from run_files import make_run


@pytest.fixture
def run(tmp_path) -> Run:
    return Run(make_run(tmp_path / "run"))


def changed(run: Run, file: str = "protocol.json", **fields) -> Run:
    path = run.folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return Run(run.folder)


def of(agent: str, benchmark: str = "atari100k", steps=(100_000,)):
    return protocols.of_source(source(benchmark, agent), benchmarks()[benchmark], steps)


def test_our_protocol_in_the_words_of_the_references(run) -> None:
    ours = protocols.of_run(run)
    assert ours == {
        "steps": 100_000, "frames": 400_000, "frame_skip": 4, "sticky_actions": 0.0, "life_loss_ends": "stack and target",
        "noops": "0-29 frames", "max_steps": 27_000, "evaluation": protocols.OWN_GAMES, "episodes": 100, "epsilon": 0.001,
    }  # fmt: skip
    assert protocols.unlike(ours, of("der")) == {}  # DER's released protocol is what the suite states
    assert protocols.unstated(ours, of("der")) == ["network", "noise"]
    assert protocols.differences("a", ours, "b", of("der")) == ""


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        ({"sticky": 0.25}, "sticky_actions", "sticky actions: 0.25 against none"),
        ({"life_loss_terminal": False}, "life_loss_ends", "a life lost ends: nothing against stack and target"),
        ({"noop_unit": "step"}, "noops", "no-ops at the start: 0-29 agent steps against 0-29 frames"),
        ({"noop_min": 1, "noop_max": 30}, "noops", "no-ops at the start: 1-30 frames against 0-29 frames"),
        ({"noop_max": 0}, "noops", "no-ops at the start: none against 0-29 frames"),
        ({"episode_steps": 4500}, "max_steps", "cap on a game, agent steps: 4,500 against 27,000"),
        (
            {"frame_skip": 5},
            "frame_skip",
            "frames of training: 500,000 against 400,000; frames an agent step: 5 against 4",
        ),
    ],
)
def test_what_departs_from_a_reference_is_said(run, fields, field, said) -> None:
    ours = protocols.of_run(changed(run, **fields))
    assert field in protocols.unlike(ours, of("der"))
    assert protocols.differences("a", ours, "b", of("der")) == f"Unlike protocols, a against b: {said}."


def test_what_acts_is_read_from_the_configuration(run) -> None:
    text = (run.folder / "config.yaml").read_text()
    for target, network in ((True, "target"), (False, "online")):
        (run.folder / "config.yaml").write_text(
            text.replace("agent:\n", f"agent:\n  act_with_target: {target}\n  sigma0: 0.1\n")
        )
        ours = protocols.of_run(Run(run.folder))
        assert (ours["network"], ours["noise"]) == (network, False)
        assert ("network" in protocols.unlike(ours, of("der"))) == target
    assert protocols.unstated(ours, of("der")) == []


def test_a_backend_that_cannot_be_saved_is_said(run) -> None:
    assert "backend" not in protocols.of_run(changed(run, "provenance.json", backend="exact", exact_resume=True))
    assert (
        protocols.of_run(changed(run, "provenance.json", backend="envpool", exact_resume=False))["backend"] == "envpool"
    )


def test_an_action_repeat_counts_frames(run) -> None:
    """DeepMind Control's protocols say so; what a reference calls frames are control steps there."""
    (run.folder / "protocol.json").write_text(json.dumps({"action_repeat": 2, "episode_steps": 500}))
    ours, theirs = protocols.of_run(Run(run.folder)), of("mrq", "dmc-proprio", [500_000])
    assert (ours["frame_skip"], ours["frames"], ours["max_steps"]) == (2, 200_000, 500)
    assert set(protocols.unlike(ours, theirs)) <= {"steps", "frames", "episodes"}
    assert ours["frame_skip"] == theirs["frame_skip"]


def test_another_budget_is_said(run) -> None:
    ours = protocols.of_run(changed(run, "result.json", step=50_000))
    assert protocols.unlike(ours, of("der")) == {"steps": (50_000, 100_000), "frames": (200_000, 400_000)}


def test_which_episodes_count_is_part_of_it(run) -> None:
    theirs = of("dreamerv3_2024_repo")
    assert protocols.unlike(protocols.of_run(run), theirs) == {"evaluation": (protocols.OWN_GAMES, "training episodes")}
    assert "episodes" not in theirs  # of how many, their file does not say


def test_frames_are_not_taken_for_agent_steps() -> None:
    tdmpc2 = of("tdmpc2_hansen2024", "dmc-proprio", [1_000_000])
    mrq = of("mrq", "dmc-proprio", [500_000])
    assert (tdmpc2["steps"], tdmpc2["frames"]) == (mrq["steps"], mrq["frames"]) == (500_000, 1_000_000)
    sac = of("sac_rr1_nikishin2022", "dmc-proprio", [500_000])
    assert (sac["steps"], sac["frames"]) == (500_000, 500_000)
    assert set(protocols.unlike(sac, mrq)) == {"frames", "frame_skip", "max_steps"}
    drq = of("drq_nikishin2022", "dmc-visual", [1_000_000])
    assert drq["frames"] == 1_000_000
    assert "steps" not in drq  # its action repeat differs by task and is not stated
    assert of("drq_nikishin2022", "dmc-visual", [500_000, 2_000_000])["frames"] == "500,000 to 2,000,000, by task"
    assert "steps" not in of("newt", "mmbench-soup200", [100_000_000])


def test_what_nobody_states_is_not_filled_in() -> None:
    assert of("iris") == {"steps": 100_000, "frames": 400_000, "frame_skip": 4}
    assert "steps" not in of("human", steps=[None])


def test_values_in_words() -> None:
    cases = [("noise", True, "yes"), ("noise", False, "no"), ("sticky_actions", 0.0, "none"), ("epsilon", 0.0, "0"), ("steps", 100_000, "100,000"), ("noops", "none", "none")]  # fmt: skip
    assert [protocols.in_words(field, value) for field, value, _ in cases] == [words for *_, words in cases]
