"""What an agent step of Atari costs beside bare emulation: `python -m rlplatform.evaluation.bench.atari`.

Bare: four `act` and one gray screen of ALE's own interface, in a Python loop. Ours: `AtariBatch.step` with n = 1, which adds
the second screen, maximum, reduction to 84 x 84, lives, checks and the Step. Both play the same game with the same
actions (no no-ops, lives not terminal, so that the emulators do the same work), in turns of 100 agent steps; a ratio is the
median over turns of ours / bare within one turn. Times are of this thread on the CPU, so that what else the machine does
counts little.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import ale_py
import numpy as np

from rlplatform.envs import make, suite_of
from rlplatform.envs.atari import rom_path
from rlplatform.envs.suites import AtariProtocol
from rlplatform.provenance import machine, packages
from rlplatform.types import Array, EnvBatch

TURN = 100  # agent steps
RESULT = Path(__file__).parent / "results" / "atari.json"


class Bare:
    """The least that plays a game: emulation and a screen."""

    def __init__(self, game: str) -> None:
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self.ale = ale_py.ALEInterface()
        self.ale.setFloat("repeat_action_probability", 0.0)
        self.ale.setInt("random_seed", 0)
        self.ale.loadROM(rom_path(game))
        self.actions = [int(action.value) for action in self.ale.getMinimalActionSet()]
        self.screen = np.zeros(self.ale.getScreenDims(), np.uint8)
        self.ale.reset_game()

    def play(self, actions: Array) -> float:
        """CPU seconds for these agent steps."""
        begin = time.thread_time()
        act, ale, screen = self.ale.act, self.ale, self.screen
        for chosen in actions:
            action = self.actions[chosen]
            reward = 0
            for _ in range(4):
                reward += act(action)
            ale.getScreenGrayscale(screen)
            if ale.game_over():
                ale.reset_game()
        return time.thread_time() - begin


def play(env: EnvBatch, actions: Array) -> float:
    """CPU seconds for these agent steps of one environment."""
    begin = time.thread_time()
    for t in range(len(actions)):
        env.step(actions[t : t + 1])
    return time.thread_time() - begin


def measure(game: str, turns: int) -> tuple[float, float, float]:
    """Medians over turns: microseconds an agent step, bare and ours, and the ratio within a turn."""
    bare = Bare(game)
    env = make(f"atari/{game}", 1, 0, protocol=AtariProtocol(noop_max=0, life_loss_terminal=False))
    env.reset()
    rng = np.random.default_rng(0)
    pairs = []
    for turn in range(turns + 1):
        actions = rng.integers(len(bare.actions), size=TURN)
        if turn % 2:
            bare_s, ours_s = bare.play(actions), play(env, actions)
        else:
            ours_s, bare_s = play(env, actions), bare.play(actions)
        pairs.append((bare_s / TURN * 1e6, ours_s / TURN * 1e6))
    pairs = pairs[1:]  # the first turn learns the palette and warms the caches
    return (
        statistics.median(bare for bare, _ in pairs),
        statistics.median(ours for _, ours in pairs),
        statistics.median(ours / bare for bare, ours in pairs),
    )


def main() -> None:
    """Measure all games of Atari-100k, print a table, write results/atari.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=20, help="of 100 agent steps, for each game and side")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()

    rows = {}
    print(f"{'game':16}{'bare us':>10}{'ours us':>10}{'ratio':>8}")
    for task in suite_of("atari").tasks:
        game = task.removeprefix("atari/")
        bare, ours, ratio = measure(game, arguments.turns)
        rows[game] = {"bare_us": round(bare, 1), "ours_us": round(ours, 1), "ratio": round(ratio, 3)}
        print(f"{game:16}{bare:10.1f}{ours:10.1f}{ratio:8.3f}", flush=True)
    ratios = [row["ratio"] for row in rows.values()]
    summary = {"median_ratio": statistics.median(ratios), "worst_ratio": max(ratios), "best_ratio": min(ratios)}
    print("  ".join(f"{name} {value:.3f}" for name, value in summary.items()))
    arguments.out.parent.mkdir(exist_ok=True)
    content = {"turns": arguments.turns, **summary, "games": rows, "machine": machine(), "packages": packages()}
    arguments.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
