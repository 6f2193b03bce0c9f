"""What a run comes to, in Markdown, from its files: `summarise` one, `results` a table of all that are under a folder."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlplatform.evaluation import stats
from rlplatform.evaluation.groups import by_agent
from rlplatform.evaluation.published import REPS, benchmark_of, counterpart, published, source, standing
from rlplatform.evaluation.runs import Run, find

PUBLISHED_STEPS = {"atari100k": 100_000}  # agent steps of training behind the published scores


def summarise(folder: Path, against: Sequence[str] = ()) -> str:
    """A finished run on one page: scores, standing within published runs, protocol, where the time went, configuration.

    Args:
        folder: of the run, or of a collected one.
        against: published agents to compare with besides the counterpart of the run's preset.
    """
    run = Run(folder)
    parts = [
        f"# {run.preset} on {run.task}, seed {run.seed}",
        f"After {protocol_line(run)}.",
        "## Final evaluation", _scores(run),
        *_published(run, against),
        "## Where the time went", _times(run),
        "## What it ran on", _provenance(run),
        "## Protocol", _block("json", (folder / "protocol.json").read_text()),
        "## Configuration", _block("yaml", (folder / "config.yaml").read_text()),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def results(root: Path) -> str:
    """A table of all finished runs under `root`, a row a run, in order of agent (named as `groups.by_agent` does), task and seed."""
    agents = {run.folder: name for name, _, members in by_agent(find(root)) for run in members}
    runs = sorted(find(root), key=lambda run: (agents[run.folder], run.task, run.seed))
    header = [
        "agent",
        "task",
        "seed",
        "agent steps",
        "score [95 %]",
        "median",
        "normalised",
        "published",
        "percentile",
        "hours",
        "commit",
    ]
    rows = [header, ["---"] * len(header)]
    for run in runs:
        score = _mean(run)
        scaled = run.final.human_normalized
        theirs, place = "none", ""
        if (compared := _counterpart(run)) is not None:
            benchmark, agent = compared
            those = published(benchmark, agent, run.task)
            theirs = f"{source(benchmark, agent).title}: {those.mean():,.1f}, {len(those)} runs"
            place = f"{standing(run.final.score, those).percentile:.0f}"
        rows.append([
            agents[run.folder], run.task, str(run.seed), f"{run.result['step']:,}", in_words(score), f"{np.median(run.final.score):,.1f}",
            "" if scaled is None else f"{scaled.mean():.3f}", theirs, place, f"{run.result['elapsed_s'] / 3600:.2f}", _commit(run),
        ])  # fmt: skip
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def benchmark_title(benchmark: str) -> str:
    """As people write it."""
    return {"atari100k": "Atari-100k"}.get(benchmark, benchmark)


def protocol_line(run: Run) -> str:
    """The protocol of a run's scores, in words."""
    protocol, evaluation = run.protocol, run.protocol.get("evaluation", {})
    words = [f"{run.result['step']:,} agent steps"]
    if "frame_skip" in protocol:
        words[0] += f" of {protocol['frame_skip']} frames"
    if evaluation:
        words.append(f"then {evaluation['episodes']} whole games")
    if (epsilon := run.config["agent"].get("epsilon_eval")) is not None:
        words[-1] += f" at epsilon {epsilon:g}"
    if "sticky" in protocol:
        words.append(f"sticky actions {protocol['sticky']:g}" if protocol["sticky"] else "no sticky actions")
    if "noop_max" in protocol:
        unit = {"frame": "frames", "step": "agent steps"}[protocol["noop_unit"]]
        words.append(f"{protocol.get('noop_min', 0)}-{protocol['noop_max']} no-op {unit}")
    if "episode_steps" in protocol:
        words.append(f"cap {protocol['episode_steps']:,} steps")
    return ", ".join(words)


def in_words(score: stats.Interval) -> str:
    """As "12.3 [11.0, 13.6]": to the digits that the interval's width leaves meaningful, two of them."""
    width = score.high - score.low
    digits = 2 if width <= 0 else max(0, 1 - math.floor(math.log10(width)))
    return f"{score.point:,.{digits}f} [{score.low:,.{digits}f}, {score.high:,.{digits}f}]"


def _scores(run: Run) -> str:
    final, score = run.final, _mean(run)
    rows = [
        ["", "raw score", "normalised"],
        ["---", "---:", "---:"],
        ["mean [95 % interval]", in_words(score), _scaled(run, np.mean)],
        ["median", f"{np.median(final.score):,.2f}", _scaled(run, np.median)],
        ["IQM", f"{_iqm(final.score):,.2f}", _scaled(run, _iqm)],
        ["standard deviation", f"{final.score.std(ddof=1) if len(final.score) > 1 else 0.0:,.2f}", ""],
        ["lowest, highest", f"{final.score.min():,g}, {final.score.max():,g}", ""],
    ]
    table = "".join("| " + " | ".join(row) + " |\n" for row in rows)
    cut = int(final.truncated.sum())
    return table + (
        f"\n{len(final.score)} games of {final.length.mean():,.0f} agent steps on average, {cut} of them ended by the cap. "
        "Mean, median and IQM are over games; the interval is that of the games' chance, for this one trained agent."
    )


def _published(run: Run, against: Sequence[str]) -> list[str]:
    benchmark = benchmark_of(run.task)
    if benchmark is None:
        if against:
            raise ValueError(f"nothing was published on {run.task}: it cannot be compared with {', '.join(against)}")
        return []
    own = counterpart(benchmark, run.preset)
    agents = list(dict.fromkeys([*([own] if own else []), *against]))
    if not agents:
        return []
    lines = ["| published | runs | mean | lowest, highest | percentile of ours [95 %] |", "|---|---:|---:|---:|---:|"]
    for agent in agents:
        theirs = published(benchmark, agent, run.task)
        place = standing(run.final.score, theirs)
        lines.append(
            f"| {source(benchmark, agent).title} | {len(theirs)} | {theirs.mean():,.2f} | {theirs.min():,g}, {theirs.max():,g} "
            f"| {place.percentile:.1f} [{place.percentile_low:.1f}, {place.percentile_high:.1f}] |"
        )
    if own is not None:
        lines += ["", _verdict(run, benchmark, own)]
    if run.result["step"] != PUBLISHED_STEPS[benchmark]:
        lines += [
            "",
            f"**Unlike budgets**: theirs is {PUBLISHED_STEPS[benchmark]:,} agent steps, this run had {run.result['step']:,}.",
        ]
    lines += [
        "",
        *(f"Source of {source(benchmark, agent).title}: {source(benchmark, agent).source}." for agent in agents),
    ]
    return [f"## Among the published runs on {benchmark_title(benchmark)}", "\n".join(lines)]


def _verdict(run: Run, benchmark: str, agent: str) -> str:
    theirs = published(benchmark, agent, run.task)
    score, title, n = float(run.final.score.mean()), source(benchmark, agent).title, len(theirs)
    if score < theirs.min():
        return f"Below all {n} published runs of {title}."
    if score > theirs.max():
        return f"Above all {n} published runs of {title}."
    low, high = np.quantile(theirs, [0.025, 0.975])
    where = "within" if low <= score <= high else "outside"
    return f"{where.capitalize()} the middle 95 % of the {n} published runs of {title}, {low:,.1f} to {high:,.1f}."


def _times(run: Run) -> str:
    """Watched calls nest: an update samples, and the final evaluation is beside the loop."""
    seconds, total = run.result["seconds"], run.result["elapsed_s"]
    parts = {
        "acting: environments": seconds.get("env", 0.0),
        "acting: policy": seconds.get("act", 0.0),
        "storing": seconds.get("observe", 0.0),
        "sampling": seconds.get("sample", 0.0),
        "learning": seconds.get("update", 0.0) - seconds.get("sample", 0.0),
        "evaluating": seconds.get("evaluate", 0.0),
    }
    parts["the rest"] = total - sum(parts.values())
    lines = ["| part | seconds | share |", "|---|---:|---:|"]
    lines += [f"| {name} | {spent:,.1f} | {spent / total:.1%} |" for name, spent in parts.items()]
    return "\n".join([*lines, f"| all | {total:,.1f} | 100.0% |"])


def _provenance(run: Run) -> str:
    facts = run.provenance
    machine, versions = facts["machine"], {"rlplatform": facts["rlplatform"], **facts["packages"]}
    gpus = ", ".join(machine["gpus"]) or "no GPU"
    lines = [
        f"- begun {facts['started']}, commit {_commit(run)}",
        "- " + ", ".join(f"{name} {version}" for name, version in versions.items() if version is not None),
        f"- {machine['cpu']}, {machine['usable_cores']} cores, {run.config.get('threads', '?')} threads of matrix products, {gpus}",
    ]
    if "rom_md5" in facts:
        lines.append(f"- ROM MD5 {facts['rom_md5']}")
    if not facts.get("exact_resume", True):
        lines.append(
            f"- backend {facts['backend']}, which cannot be saved: {run.result['games_cut']} games cut short by resumes"
        )
    return "\n".join(lines)


def _commit(run: Run) -> str:
    git = run.provenance["git"]
    return "none (installed)" if git is None else git["commit"][:10] + (" with local changes" if git["dirty"] else "")


def _counterpart(run: Run) -> tuple[str, str] | None:
    benchmark = benchmark_of(run.task)
    agent = None if benchmark is None else counterpart(benchmark, run.preset)
    return None if benchmark is None or agent is None else (benchmark, agent)


def _mean(run: Run) -> stats.Interval:
    return stats.interval({"games": run.final.score}, stats.mean, reps=REPS, few_seeds=True)


def _iqm(scores: Any) -> float:
    return stats.iqm({"games": scores})


def _scaled(run: Run, of: Any) -> str:
    scaled = run.final.human_normalized
    return "" if scaled is None else f"{of(scaled):.3f}"


def _block(language: str, text: str) -> str:
    return f"```{language}\n{text.strip()}\n```"
