"""What runs logged of their networks' plasticity (`plasticity.every`), as lines that can be drawn and averaged."""

from collections.abc import Sequence

import numpy as np

from rlplatform.evaluation.groups import POINTS, Group
from rlplatform.evaluation.published import task_name
from rlplatform.evaluation.stats import Floats

MEASURES = {  # what rlplatform.inspection logs, as people write it, in the order of figures
    "plasticity/dormant": "dormant units",
    "plasticity/dead": "dead units",
    "plasticity/effective_rank": "effective rank",
    "plasticity/srank": "srank",
    "plasticity/feature_rank": "feature rank",
    "plasticity/approximate_rank": "approximate rank",
    "plasticity/feature_norm": "feature norm",
    "plasticity/weight_norm": "weight norm",
    "plasticity/gradient_norm": "gradient norm",
    "plasticity/policy_churn": "policy churn",
    "plasticity/policy_shift": "policy shift",
    "plasticity/gradient_collinearity": "gradient collinearity",
}


def lines(groups: Sequence[Group], tasks: Sequence[str]) -> dict[str, dict[str, tuple[Floats, Floats]]]:
    """Measure -> group -> (agent steps [P], values [R, P]) of the group's runs on these tasks that logged it twice or more, each at the
    same steps by linear interpolation. Measures and groups without such runs are left out."""
    found: dict[str, dict[str, tuple[Floats, Floats]]] = {}
    for measure in MEASURES:
        for group in groups:
            names = {
                run.task: task_name(group.benchmark, run.task) if group.benchmark else run.game for run in group.runs
            }
            all_logged = [run.series(measure) for run in group.runs if names[run.task] in tasks]
            logged = [line for line in all_logged if len(line) > 1]
            if not logged:
                continue
            first, last = max(line[0, 0] for line in logged), min(line[-1, 0] for line in logged)
            if first < last:
                grid = np.linspace(first, last, POINTS)
                values = np.stack([np.interp(grid, line[:, 0], line[:, 1]) for line in logged])
                found.setdefault(measure, {})[group.name] = (grid, values)
    return found
