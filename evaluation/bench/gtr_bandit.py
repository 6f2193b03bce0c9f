"""What each penalty does to a policy that ought to leave its anchor: a bandit with exact gradients.

    rlplatform bench gtr_bandit [--betas B ...] [--steps N] [--out FILE]

Five arms and a softmax policy. The anchor, which stays, plays arm 0 nine times in ten; the best arm is now another one, whose reward
is 1 while all others have 0. Plain gradient descent on -(expected reward) + beta psi(KL(anchor || policy)), learning rate 0.5, from
the anchor, in float64: no noise, no clipping, no sampling. A row says how often the new arm is played at the end, and after
how many steps it first was played four times in five. The equations are our formulation of GTR (docs/techniques/gtr.md).
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch

from rlplatform.provenance import provenance
from rlplatform.techniques import gtr
from rlplatform.techniques.gtr import TrustConfig

ARMS, OLD, NEW = 5, 0, 1
PLAYED = 0.9  # by the anchor, the old arm
LEARNING_RATE = 0.5
REACHED = 0.8
FORMS = ("none", "kl", "welsch", "kernel_kl")


def play(form: str, betas: list[float], steps: int) -> list[dict[str, Any]]:
    """A row for each beta; all are descended side by side. Form "none" has no penalty."""
    prob = torch.full((ARMS,), (1.0 - PLAYED) / (ARMS - 1), dtype=torch.float64)
    prob[OLD] = PLAYED
    anchor = prob.log()
    reward = torch.zeros(ARMS, dtype=torch.float64)
    reward[NEW] = 1.0
    beta = torch.tensor(betas, dtype=torch.float64)
    logits = anchor.repeat(len(betas), 1).requires_grad_()
    first = torch.full((len(betas),), steps + 1)
    for step in range(1, steps + 1):
        policy = logits.log_softmax(-1)
        loss = -(policy.exp() @ reward)
        if form != "none":
            loss = loss + beta * gtr.penalty(gtr.categorical_kl(anchor, policy)[None], TrustConfig(form=form))
        (grad,) = torch.autograd.grad(loss.sum(), logits)
        logits = (logits - LEARNING_RATE * grad).detach().requires_grad_()
        played = logits.detach().softmax(-1)[:, NEW]
        first = torch.where((played >= REACHED) & (first > steps), step, first)
    return [
        {
            "form": form, "beta": b, "new_arm": round(p, 4), "steps_to_80": int(at) if at <= steps else None,
        }
        for b, p, at in zip(betas, played.tolist(), first.tolist(), strict=True)
    ]  # fmt: skip


def main() -> None:
    """Measure, print a table, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--betas", nargs="+", type=float, default=[0.5, 1.0, 2.0, 4.0])
    parser.add_argument("--steps", type=int, default=2_000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "gtr_bandit.json")
    given = parser.parse_args()
    load = list(os.getloadavg())
    rows = []
    for form in FORMS:
        rows += play(form, given.betas if form != "none" else [0.0], given.steps)
    print("      form  beta  new_arm  steps_to_80")
    for row in rows:
        print(f"{row['form']:>10}  {row['beta']:>4}  {row['new_arm']:>7}  {row['steps_to_80'] or 'never':>11}")
    settings = {"arms": ARMS, "variance": TrustConfig().variance, "learning_rate": LEARNING_RATE, "steps": given.steps}
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps({**settings, "rows": rows, **provenance(), "load": load}, indent=1) + "\n")


if __name__ == "__main__":
    main()
