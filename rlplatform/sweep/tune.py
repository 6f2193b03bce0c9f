"""Trials on Ray Tune: Optuna (TPE) asks for configurations, ASHA stops those that fall behind, a trial's runs are Ray tasks.

Tune's own records are not used to go on: the book is. What was finished is told to sampler and scheduler again, and what was under
way is begun again and finds its runs where they were. So a sweep goes on after any kill, and can be given more trials.
"""

import json
import logging
import os
import shutil
import traceback
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from rlplatform.evaluation.sweeps import Rung, Score, Trial, score
from rlplatform.placement import ClusterError
from rlplatform.sweep.book import Book
from rlplatform.sweep.schema import Param, Sweep, configure
from rlplatform.sweep.trial import advance, find_modules, needs

try:
    import optuna
    import ray
    from ray import tune
    from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler
    from ray.tune.search import Searcher
except ModuleNotFoundError as missing:
    raise ClusterError(f"a sweep needs Ray Tune and Optuna ({missing}): pip install 'rlplatform[cluster]'") from missing

METRIC, TIME = "score", "agent_steps"
SCORES = "scores"  # task -> seeds, as JSON: Tune takes mappings apart
FEWEST_FOR_IMPORTANCE = 10  # trials; of fewer an importance is noise
TOP = 0.25  # share of trials that PED-ANOVA calls good: 0.1, its default, is one of ten


def search(book: Book, say: Callable[[str], None], should_stop: Callable[[], int]) -> None:
    """Run trials until there are as many as the sweep says, or until it is asked to stop. Ray is connected."""
    sweep = book.sweep
    asker = Asker(book, say, should_stop)
    if asker.nothing_to_do:
        return
    logging.getLogger("ray.tune").setLevel(logging.ERROR)  # it misses the log files that we do not ask for
    scratch = book.folder / "ray"  # what Tune writes for itself: never read
    shutil.rmtree(scratch, ignore_errors=True)
    os.environ |= {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "TUNE_DISABLE_SIGINT_HANDLER": "1", "RAY_AIR_NEW_OUTPUT": "0",
        "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    }  # fmt: skip
    scheduler = _scheduler(sweep)
    replay(scheduler, book.of("complete", "stopped"))
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(take_trial, sweep=sweep, folder=str(book.folder.absolute()), cwd=str(Path.cwd())), partial(places, sweep)),
        tune_config=tune.TuneConfig(search_alg=asker, scheduler=scheduler, num_samples=-1, reuse_actors=False),
        run_config=tune.RunConfig(
            name="tune", storage_path=str(scratch.absolute()), verbose=0, stop=_Stopper(should_stop),
            failure_config=tune.FailureConfig(max_failures=sweep.retries),
        ),
    )  # fmt: skip
    tuner.fit()
    shutil.rmtree(scratch, ignore_errors=True)


def places(sweep: Sweep, given: Mapping[str, Any]) -> Any:
    """What a trial holds while it runs: room for `parallel` of its runs, with the threads and actors that it tries."""
    one = needs(sweep, configure(sweep, sweep.tasks[0], 0, given["params"]))
    bundle = {name: n for name, n in (("CPU", one.cpus), ("GPU", one.gpus)) if n}
    return tune.PlacementGroupFactory([{}, *[bundle] * sweep.parallel])


def take_trial(given: Mapping[str, Any], sweep: Sweep, folder: str, cwd: str) -> None:
    """The body of a trial: from rung to rung, its runs as Ray tasks, and a report at each."""
    where = Path(folder) / "trials" / f"t{given['number']:04d}"
    try:
        find_modules(sweep, cwd)
        for step in sweep.milestones:
            scores = _rung(sweep, given["params"], where, step, cwd)
            found = score(scores)
            tune.report(
                {METRIC: found.point, "low": found.low, "high": found.high, SCORES: json.dumps(scores), TIME: step}
            )
    except Exception:  # whatever a run of the user's raises: kept for the driver, which sees only that it failed
        (where / "error.txt").write_text(traceback.format_exc())
        raise


def _rung(sweep: Sweep, params: Mapping[str, Any], where: Path, step: int, cwd: str) -> dict[str, list[float]]:
    """Task -> the normalised score of each seed, at `step`."""
    one = needs(sweep, configure(sweep, sweep.tasks[0], 0, params))
    # The trial's places are those of its tasks, too: Tune has the group take in what a trial starts.
    task_of = ray.remote(num_cpus=one.cpus, num_gpus=one.gpus, max_retries=0)(advance)
    pending = {
        (task.rpartition("/")[2], seed): task_of.remote(
            sweep, task, seed, params, where / task.rpartition("/")[2] / f"seed_{seed}", step, cwd
        )
        for seed in range(sweep.seeds)
        for task in sweep.tasks
    }
    scores = {key: float(value) for key, value in zip(pending, ray.get(list(pending.values())), strict=True)}
    return {
        name: [scores[name, seed] for seed in range(sweep.seeds)] for name in dict.fromkeys(key[0] for key in pending)
    }


class Asker(Searcher):  # type: ignore[misc]  # Ray's types are not read
    """Optuna's sampler behind Tune's face, over the book.

    What trial k is, is a function of the sweep's seed, k and the trials that were told before it was asked for.
    """

    def __init__(self, book: Book, say: Callable[[str], None], should_stop: Callable[[], int]) -> None:
        super().__init__()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.book, self.say, self.should_stop = book, say, should_stop
        self.distributions = {key: distribution(param) for key, param in book.sweep.space.items()}
        self.study = optuna.create_study(direction="maximize")
        for trial in book.of("complete", "stopped", "failed"):
            self.study.add_trial(frozen(trial, self.distributions))
        self.unfinished = [trial.number for trial in book.of("running")]
        self._under_way: dict[str, tuple[int, Any]] = {}  # Tune's trial id -> (number, Optuna's trial)
        self._said: dict[str, set[int]] = {}  # Tune's trial id -> the rungs that were reported

    @property
    def nothing_to_do(self) -> bool:
        return not self.unfinished and len(self.book.trials) >= self.book.sweep.trials

    def set_search_properties(self, metric: Any, mode: Any, config: Any, **spec: Any) -> bool:
        """The metric is ours, and the space is the sweep's."""
        return True

    def suggest(self, trial_id: str) -> Any:
        """The next configuration: those that were under way first."""
        if self.unfinished:
            trial = self.book.trials[self.unfinished.pop(0)]
            self.study.enqueue_trial(dict(trial.params))
            asked = self.study.ask(self.distributions)
        elif len(self.book.trials) < self.book.sweep.trials:
            number = max(self.book.trials, default=-1) + 1
            self.study.sampler = sampler(self.book.sweep, number)
            asked = self.study.ask(self.distributions)
            trial = self.book.begin(asked.params)
        else:
            return Searcher.FINISHED
        self._under_way[trial_id] = trial.number, asked
        self.say(f"{trial.name} begins: {in_words(trial.params)}")
        return {"number": trial.number, "params": dict(trial.params)}

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """A rung after which the trial goes on; that of its end comes with `on_trial_complete`."""
        number, asked = self._under_way[trial_id]
        self._note(trial_id, number, asked, result)

    def _note(self, trial_id: str, number: int, asked: Any, result: Mapping[str, Any]) -> None:
        rung = rung_of(result)
        again = rung.step in self._said.setdefault(trial_id, set())  # by a trial that failed and was begun again
        self._said[trial_id].add(rung.step)
        if again:
            return
        self.book.note(number, rung)
        asked.report(rung.score.point, rung.step)
        self.say(f"t{number:04d} at {rung.step:,} agent steps: {rung.score}")

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """At its end, stopped, failed, or taken away by a stop of the sweep: then it stays under way in the book."""
        number, asked = self._under_way.pop(trial_id)
        states = optuna.trial.TrialState
        if error:
            file = self.book.folder_of(number) / "error.txt"
            said = file.read_text().strip().splitlines()[-1] if file.is_file() else "its process is gone"
            self.book.end(number, "failed", said)
            self.study.tell(asked, state=states.FAIL)
            self.say(f"t{number:04d} failed: {said}")
            return
        if result and METRIC in result:
            self._note(trial_id, number, asked, result)
        last = self.book.trials[number].last
        if last is None:
            return  # stopped before its first rung
        if last.step >= self.book.sweep.steps:
            self.book.end(number, "complete")
            self.study.tell(asked, last.score.point)
        elif not self.should_stop():
            self.book.end(number, "stopped")
            self.study.tell(asked, state=states.PRUNED)
            self.say(f"t{number:04d} is stopped at {last.step:,} agent steps")

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the book is the memory."""
        Path(checkpoint_path).write_text("")

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see save."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its arguments beside its records, which nobody reads


class _Stopper(tune.Stopper):  # type: ignore[misc]
    """Ends the search when the driver is asked to."""

    def __init__(self, should_stop: Callable[[], int]) -> None:
        self.should_stop = should_stop

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self.should_stop() > 0

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as the Asker's


def rung_of(result: Mapping[str, Any]) -> Rung:
    """What a trial has reported."""
    return Rung(int(result[TIME]), Score(result[METRIC], result["low"], result["high"]), json.loads(result[SCORES]))


def sampler(sweep: Sweep, number: int) -> Any:
    """TPE for trial `number`, with a seed of its own: a sampler that was made anew after a restart must not draw the first trials'
    configurations again."""
    seed = int(np.random.SeedSequence([sweep.seed, number]).generate_state(1)[0])
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=sweep.startup)


def distribution(param: Param) -> Any:
    """As Optuna says it."""
    if param.type == "choice":
        return optuna.distributions.CategoricalDistribution(param.choices)
    if param.type == "int":
        return optuna.distributions.IntDistribution(int(param.low), int(param.high))
    return optuna.distributions.FloatDistribution(param.low, param.high, log=param.type == "log")


def frozen(trial: Trial, distributions: Mapping[str, Any]) -> Any:
    """A trial that has ended, as Optuna keeps them."""
    states = optuna.trial.TrialState
    state = {"complete": states.COMPLETE, "stopped": states.PRUNED, "failed": states.FAIL}[trial.state]
    last = trial.last
    value = last.score.point if last is not None and trial.state == "complete" else None
    return optuna.trial.create_trial(
        state=state, value=value, params=dict(trial.params), distributions=dict(distributions),
        intermediate_values={rung.step: rung.score.point for rung in trial.rungs},
    )  # fmt: skip


def replay(scheduler: TrialScheduler, trials: list[Trial]) -> None:
    """Tell a new scheduler what ended trials have reached, so that its rungs are as full as they were."""
    for trial in trials:
        one: Any = SimpleNamespace(trial_id=trial.name)
        nobody: Any = None  # there is no controller yet, and ASHA does not ask for it
        scheduler.on_trial_add(nobody, one)
        for rung in trial.rungs:
            scheduler.on_trial_result(nobody, one, {METRIC: rung.score.point, TIME: rung.step})


def importance(trials: list[Trial], space: Mapping[str, Param], step: int) -> dict[str, float]:
    """PED-ANOVA (Watanabe et al. 2023, arXiv:2304.10255) over all trials that have a score at `step`: the share of each key in what
    makes a trial one of the best quarter. {} where there are fewer than 10."""
    distributions = {key: distribution(param) for key, param in space.items()}
    study = optuna.create_study(direction="maximize")
    for trial in trials:
        value = next((rung.score.point for rung in trial.rungs if rung.step == step), None)
        if value is not None:
            study.add_trial(
                optuna.trial.create_trial(value=value, params=dict(trial.params), distributions=distributions)
            )
    if len(study.trials) < FEWEST_FOR_IMPORTANCE:
        return {}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=TOP)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {key: float(share) for key, share in found.items()}


def in_words(params: Mapping[str, Any]) -> str:
    """key=value, key=value."""
    return ", ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in params.items()
    )


def _scheduler(sweep: Sweep) -> TrialScheduler:
    if not sweep.rungs.first:
        return FIFOScheduler()
    return AsyncHyperBandScheduler(
        time_attr=TIME, metric=METRIC, mode="max", max_t=sweep.steps, grace_period=sweep.rungs.first,
        reduction_factor=sweep.rungs.factor,
    )  # fmt: skip
