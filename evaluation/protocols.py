"""What a score was made under, in the same words for our runs and for published ones, so that unlike protocols are seen.

A field that a source does not state is absent: nothing is filled in by what is usual. `unlike` names the fields that two sides
state and state differently; what only one side states is `unstated`, which is not the same as alike.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from rlplatform.evaluation.runs import Run
from rlplatform.evaluation.store import AGENT_STEPS, Benchmark, Source

FIELDS = {  # as a protocol card shows them, and their titles
    "steps": "agent steps of training",
    "frames": "frames of training",
    "frame_skip": "frames an agent step",
    "sticky_actions": "sticky actions",
    "life_loss_ends": "a life lost ends",
    "noops": "no-ops at the start",
    "max_steps": "cap on a game, agent steps",
    "evaluation": "episodes that count",
    "episodes": "how many episodes",
    "epsilon": "epsilon of the evaluation",
    "network": "network that acts",
    "noise": "noise in the network",
    "backend": "environments not restorable to the bit",
}
Protocol = Mapping[str, Any]  # of FIELDS, those that are known
OWN_GAMES = "games of an evaluation"


def of_run(run: Run) -> dict[str, Any]:
    """The protocol of one run, from its protocol.json, result.json and config.yaml."""
    said, agent = run.protocol, run.config["agent"]
    skip, steps = said.get("frame_skip", said.get("action_repeat")), int(run.result["step"])
    known: dict[str, Any] = {
        "steps": steps,
        "frames": None if skip is None else steps * skip,
        "frame_skip": skip,
        "sticky_actions": said.get("sticky"),
        "max_steps": said.get("episode_steps"),
        "evaluation": OWN_GAMES,
        "episodes": len(run.final.score),
        "epsilon": agent.get("epsilon_eval"),
    }
    if "life_loss_terminal" in said:
        known["life_loss_ends"] = "stack and target" if said["life_loss_terminal"] else "nothing"
    if "noop_max" in said:
        unit = {"frame": "frames", "step": "agent steps"}[said["noop_unit"]]
        known["noops"] = f"{said.get('noop_min', 0)}-{said['noop_max']} {unit}" if said["noop_max"] else "none"
    if "act_with_target" in agent:
        known["network"] = "target" if agent["act_with_target"] else "online"
    if "sigma0" in agent:
        known["noise"] = False  # noisy layers act with their means in evaluation
    if run.provenance.get("exact_resume") is False:
        known["backend"] = run.provenance["backend"]
    return {field: known[field] for field in FIELDS if known.get(field) is not None}


def of_source(source: Source, benchmark: Benchmark, steps: Iterable[int | None]) -> dict[str, Any]:
    """The protocol of published scores, as far as it is known. `steps` are those of the scores, in the source's unit."""
    skip = source.frame_skip or benchmark.frame_skip
    known: dict[str, Any] = {"frame_skip": skip, **source.protocol}
    counts = sorted({step for step in steps if step is not None})
    if len(counts) == 1:
        in_frames = source.unit == "frames"
        if source.unit == AGENT_STEPS or (in_frames and skip):
            known["steps"] = counts[0] // skip if in_frames and skip else counts[0]
        if in_frames or (source.unit == AGENT_STEPS and skip):
            known["frames"] = counts[0] if in_frames else counts[0] * (skip or 1)
    elif counts:
        known["frames" if source.unit == "frames" else "steps"] = f"{counts[0]:,} to {counts[-1]:,}, by task"
    if "episodes" in known and "evaluation" not in known:
        known["evaluation"] = OWN_GAMES
    return {field: known[field] for field in FIELDS if known.get(field) is not None}


def unlike(one: Protocol, other: Protocol) -> dict[str, tuple[Any, Any]]:
    """The fields that both state, and state differently: (of one, of the other)."""
    return {
        field: (one[field], other[field])
        for field in FIELDS
        if field in one and field in other and one[field] != other[field]
    }


def unstated(one: Protocol, other: Protocol) -> list[str]:
    """The fields that one side states and the other does not."""
    return [field for field in FIELDS if (field in one) != (field in other)]


def in_words(field: str, value: Any) -> str:
    """A value as people write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if field == "sticky_actions" and value == 0:
        return "none"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def differences(name: str, one: Protocol, other_name: str, other: Protocol) -> str:
    """What is unlike, as a sentence; empty if all that both state agrees."""
    listed = "; ".join(
        f"{FIELDS[field]}: {in_words(field, a)} against {in_words(field, b)}"
        for field, (a, b) in unlike(one, other).items()
    )
    return f"Unlike protocols, {name} against {other_name}: {listed}." if listed else ""


def unknowns(name: str, one: Protocol, other_name: str, other: Protocol) -> str:
    """What cannot be compared, as a sentence; empty if both state the same fields."""
    listed = ", ".join(FIELDS[field] for field in unstated(one, other))
    return f"Stated by one of {name} and {other_name} alone, so not compared: {listed}." if listed else ""
