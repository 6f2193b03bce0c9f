"""The parity tables: our MinAtar beside the minatar package, our classic control beside Gymnasium, step by step.

    python tests/parity.py [--steps 20000] [--seeds 0 1] [--data docs/parity.json] [--page docs/parity.md]

MinAtar: the package is handed the numbers that our environment draws, and the same actions; frames, rewards and ends are compared
for equality. Half of the steps of a game are played at random, half by repeating an action for a while, which gets further.

Classic control: Gymnasium's environment is put into our state where an episode begins; actions as above. Frames (float32) and ends are compared
for equality, rewards as float32, and the distance of the float64 states behind them is said: along whole episodes, and after single steps, for which
Gymnasium's environment is put into our state before each.
"""

import argparse
import importlib.metadata
import json
from pathlib import Path

import gymnasium
import numpy as np

from reference.minatar import NAMES, Oracle
from rlplatform.envs import MinAtarProtocol, make
from rlplatform.envs.control import GAMES
from rlplatform.streams import Stream

DOCS = Path(__file__).parents[1] / "docs"


def actions_of(batch, rng, steps):
    """[steps]: at random, and from the half on each repeated for 1 to 12 steps."""
    draw = (
        (lambda n: rng.integers(batch.spec.actions, size=n))
        if batch.spec.actions
        else (lambda n: rng.uniform(-1, 1, n).astype(np.float32))
    )
    held = np.repeat(draw(steps), rng.integers(1, 13, steps))
    return np.concatenate([draw(steps // 2), held])[:steps]


def minatar(game, seed, steps, oracle_seed=None):
    """Counts of one comparison. `oracle_seed`: draws of another seed for the oracle, so that a test sees mismatches."""
    protocol = MinAtarProtocol()
    batch = make(f"minatar/{game}", 1, seed)
    key = Stream(seed if oracle_seed is None else oracle_seed, "env", 0).key
    oracle = Oracle(game, key, protocol.sticky, protocol.ramping)
    row = {"frames": int((batch.reset()[0] != oracle.frame()).any()), "rewards": 0, "ends": 0, "games": 0, "score": 0.0}
    for action in actions_of(batch, np.random.default_rng(seed), steps):
        step = batch.step(np.array([action]))
        reward, over, last, frame = oracle.step(int(action))
        row["frames"] += int((step.frame[0] != frame).any())
        row["frames"] += int(bool(step.reset[0]) and over and (step.final_frame[0] != last).any())
        row["rewards"] += int(step.reward[0] != reward)
        row["ends"] += int(step.terminated[0] != over or step.reset[0] != over or step.truncated[0])
        row["games"] += int(over)
        row["score"] += reward
    return row


def control(game, seed, steps):
    """The same for classic control, and the largest distance of the states."""
    batch, entry = make(f"control/{game}", 1, seed), GAMES[game]
    theirs, fresh = (gymnasium.make(entry.gymnasium, disable_env_checker=True) for _ in range(2))
    scale = np.float32(2 if game == "Pendulum" else 1)
    row = {
        "frames": 0,
        "rewards": 0,
        "ends": 0,
        "games": 0,
        "score": 0.0,
        "frame_error": 0.0,
        "state_error": 0.0,
        "step_error": 0.0,
    }

    def state_of():
        return np.ascontiguousarray(batch.state_dict()["state"][0, 1:]).view(np.float64)

    def put(env, state):
        env.reset(seed=0)
        env.unwrapped.state = state

    def as_theirs():
        """Our state in the dtype that theirs has: Acrobot begins in float32, MountainCarContinuous goes on in it."""
        begins = batch.state_dict()["state"][0, 0] == 0
        narrow = game == "Acrobot" if begins else game == "MountainCarContinuous"
        return state_of().astype(np.float32) if narrow else state_of()

    def begin():
        put(theirs, as_theirs())

    batch.reset()
    begin()
    for action in actions_of(batch, np.random.default_rng(seed), steps):
        put(fresh, as_theirs())
        step = batch.step(np.array([action] if entry.actions else [[action]], batch.spec.action_dtype))
        given = int(action) if entry.actions else np.array([action], np.float32) * scale
        obs, reward, terminated, truncated, _ = theirs.step(given)
        over = terminated or truncated
        last = step.final_frame[0] if step.reset[0] else step.frame[0]
        fresh.step(given)
        row["frames"] += int((last != obs).any())
        row["frame_error"] = max(row["frame_error"], float(np.abs(last - obs).max()))
        row["rewards"] += int(step.reward[0] != np.float32(reward))
        row["ends"] += int((step.terminated[0], step.truncated[0]) != (terminated, truncated))
        row["games"] += int(over)
        row["score"] += float(reward)
        if over:
            begin()
        else:
            for name, env in (("state_error", theirs), ("step_error", fresh)):
                distance = np.abs(np.asarray(env.unwrapped.state, np.float64) - state_of()).max()
                row[name] = max(row[name], float(distance))
    return row


def compare(steps, seeds):
    """All ten games: what the tables show."""
    rows = []
    for family, games, one in (("minatar", sorted(NAMES), minatar), ("control", list(GAMES), control)):
        for game in games:
            parts = [one(game, seed, steps) for seed in seeds]
            row = {key: sum(part[key] for part in parts) for key in parts[0] if not key.endswith("_error")}
            row |= {key: max(part[key] for part in parts) for key in parts[0] if key.endswith("_error")}
            rows.append({"task": f"{family}/{game}", "steps": steps * len(seeds), "seeds": len(seeds)} | row)
    packages = {name: importlib.metadata.version(name) for name in ("minatar", "gymnasium", "numpy")}
    return {"steps": steps, "seeds": list(seeds), "packages": packages, "rows": rows}


def page(data):
    """The tables as Markdown."""
    packages = data["packages"]
    seeds = " ".join(map(str, data["seeds"]))
    columns = "| game | steps compared | seeds | games that ended | reward in all | unequal frames | unequal rewards | unequal ends |"
    lines = [
        "# Parity tables",
        "",
        "Written by `python tests/parity.py`; how the comparison goes is said there, and in [envs.md](envs.md). The command:",
        f"`python tests/parity.py --steps {data['steps']} --seeds {seeds}` ({data['steps']:,} steps a game and seed).",
        "A mismatch is a step at which any number differs.",
        "",
        f"## MinAtar beside the package `minatar` {packages['minatar']}, fed the same draws",
        "",
        columns,
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in data["rows"]:
        if row["task"] == "control/Acrobot":
            lines += [
                "",
                f"## Classic control beside Gymnasium {packages['gymnasium']}, from the same starts",
                "",
                "States are float64 (MountainCarContinuous: float32, as there); frames and rewards are compared as float32. Acrobot is chaotic: the",
                "last bit of a sine grows along an episode until a float32 shows it. Distances are the largest that were seen: of frames, of states along",
                "whole episodes, and of states after one step from the same state.",
                "",
                columns.replace("games", "episodes") + " by at most | distance of states: episode | one step |",
                "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
            ]
        cells = [
            row["task"].partition("/")[2], f"{row['steps']:,}", row["seeds"], f"{row['games']:,}", f"{row['score']:,.0f}",
            row["frames"], row["rewards"], row["ends"],
        ]  # fmt: skip
        errors = [row[key] for key in ("frame_error", "state_error", "step_error") if key in row]
        cells += [f"{error:.1e}" if error else "0" for error in errors]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--data", type=Path, default=DOCS / "parity.json")
    parser.add_argument("--page", type=Path, default=DOCS / "parity.md")
    given = parser.parse_args()
    data = compare(given.steps, given.seeds)
    given.data.write_text(json.dumps(data, indent=1) + "\n")
    given.page.write_text(page(data))


if __name__ == "__main__":
    main()
