"""The replay ratio's arithmetic, and what a loss that is not finite does."""

import platform
import subprocess
import sys
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlplatform.learner import Learner
from rlplatform.types import Episodes, Metrics, Rollout, State, Weights, empty_episodes


class CountingAgent:
    """Ready after `warmup` steps; counts its updates."""

    replay = None

    def __init__(self, warmup: int, losses: list[float] | None = None) -> None:
        self.warmup, self.seen, self.updates, self.losses = warmup, 0, 0, losses

    @property
    def ready(self) -> bool:
        return self.seen > self.warmup

    def observe(self, rollouts: list[Rollout]) -> None:
        self.seen += sum(rollout.reward.size for rollout in rollouts)

    def update(self) -> Metrics:
        self.updates += 1
        return {"losses/td": self.losses[self.updates - 1] if self.losses else 0.0}

    def weights(self) -> Weights:
        return {}

    def state_dict(self) -> State:
        return {"seen": self.seen, "updates": self.updates}

    def load_state_dict(self, state: State) -> None:
        self.seen, self.updates = state["seen"], state["updates"]

    policy = eval_policy = None


def rollout(steps: int, envs: int = 1) -> Rollout:
    return SimpleNamespace(reward=np.zeros((steps, envs)), episodes=empty_episodes(), version=0)  # type: ignore[return-value]


def learner(agent: CountingAgent, ratio: float) -> Learner:
    return Learner(agent, ratio)  # type: ignore[arg-type]


@given(
    st.sampled_from([0.0, 0.1, 0.25, 0.3, 1.0, 2.0, 2.5, 8.0]),
    st.integers(0, 20),
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 3)), max_size=30),
)
def test_updates_due_are_the_floor_of_the_exact_product(
    ratio: float, warmup: int, shapes: list[tuple[int, int]]
) -> None:
    agent = CountingAgent(warmup)
    subject = learner(agent, ratio)
    credited = 0
    for steps, envs in shapes:
        subject.learn([rollout(steps, envs)])
        credited += steps * envs if agent.seen > warmup else 0
        assert agent.updates == subject.updates == credited * Fraction(str(ratio)) // 1
    assert subject.steps == sum(t * n for t, n in shapes)
    assert subject.version == len(shapes)


def test_the_first_update_follows_the_first_step_past_the_warm_up() -> None:
    agent = CountingAgent(2_000)
    subject = learner(agent, 2.0)
    for _ in range(2_000):
        subject.learn([rollout(1)])
    assert agent.updates == 0
    subject.learn([rollout(1)])
    assert agent.updates == 2


@given(st.integers(1, 40), st.sampled_from([0.1, 0.3, 1.5]))
def test_resuming_neither_repeats_nor_skips_updates(cut: int, ratio: float) -> None:
    whole, first = CountingAgent(5), CountingAgent(5)
    a, b = learner(whole, ratio), learner(first, ratio)
    for _ in range(50):
        a.learn([rollout(1)])
    for _ in range(cut):
        b.learn([rollout(1)])
    second = CountingAgent(5)
    c = learner(second, ratio)
    c.load_state_dict(b.state_dict())
    for _ in range(50 - cut):
        c.learn([rollout(1)])
    assert (second.updates, c.version, c.steps) == (whole.updates, a.version, a.steps)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run_and_says_where(bad: float) -> None:
    subject = learner(CountingAgent(0, losses=[1.0, 2.0, bad]), 1.0)
    subject.learn([rollout(2)])
    with pytest.raises(FloatingPointError, match=r"losses/td is (nan|inf) at agent step 3, update 3"):
        subject.learn([rollout(1)])


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_a_replay_ratio_must_be_finite_and_not_negative(bad: float) -> None:
    with pytest.raises(ValueError, match="updates_per_step"):
        learner(CountingAgent(0), bad)


def test_ended_games_carry_the_agent_step_of_all_environments_at_which_they_ended() -> None:
    subject = learner(CountingAgent(0), 0.0)
    first = rollout(3, 2)  # three steps of environments 0 and 1; another actor has 2 and 3
    second = SimpleNamespace(
        reward=np.zeros((3, 2)),
        episodes=Episodes(np.array([0, 2]), np.array([3, 2]), np.array([5.0, -1.0]), np.array([7, 9])),
        version=0,
    )
    subject.learn([first, rollout(3, 2)])
    subject.learn([first, second])  # type: ignore[list-item]
    assert subject.ended == [(12 + 4, 3, 5.0, 7), (12 + 12, 2, -1.0, 9)]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc: its heap is left as it is")
def test_what_a_learner_frees_it_takes_again() -> None:
    """Gradient steps of several blocks of 20 MB, counted in pages that the system had to clear: none once the first step has them."""
    script = """if True:
        import resource, sys
        from rlplatform.learner import Learner
        if sys.argv[1] == "learner":
            Learner(None, 1.0)
        def step():
            blocks = [b"x" * 20_000_000 for _ in range(4)]  # not NumPy's, which asks for pages of 2 MB
        step(), step()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(5):
            step()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    """

    def cleared(who: str) -> int:
        run = subprocess.run([sys.executable, "-P", "-c", script, who], capture_output=True, text=True, check=True)
        return int(run.stdout)

    assert cleared("nobody") > 5 * 10_000  # of 4 kB each; or this test would see nothing
    assert cleared("learner") < 200
