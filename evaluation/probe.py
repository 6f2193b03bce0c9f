"""Loss of plasticity where nothing but plasticity is at stake: a network that memorises random labels, again and again.

    python -m rlplatform.evaluation.probe [--methods M ...] [--seeds S] [--tasks T] [--epochs E] [--rate R] [--out FILE] [--plot FILE]

One set of standard normal inputs; in every task each has a new label, drawn uniformly, and a two-layer ReLU network goes on from where the
last task left it (after Lyle et al. 2023, arXiv:2303.01486, and Kumar et al. 2023, arXiv:2308.11958, who take images). All tasks are equally
hard, so a network that learns task 30 worse than task 1 has lost something that a new one has. Every method is the baseline and one
technique, by the very functions that agents use:

    adam            the baseline: nothing
    fresh           a new network and optimiser for every task: what there is to lose
    redo            ReDo
    l2_init         L2 Init
    spectral_norm   the second hidden layer normalised
    shrink_perturb  between tasks, 0.8 theta + 0.2 of a fresh initialisation, moments cleared

Of each task: accuracy on its own labels at the end, its mean over the epochs, and dormant units, srank and weight norm at the end. All inputs
and labels are made here, from (seed, name, task). Minutes on a CPU.
"""

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # its name everywhere
from torch import Tensor, nn

from rlplatform.nets import Linear
from rlplatform.provenance import provenance
from rlplatform.streams import Stream
from rlplatform.techniques import l2_init, plasticity, resets, spectral_norm
from rlplatform.techniques.activations import record
from rlplatform.techniques.redo import Recycler, ReDoConfig, link
from rlplatform.techniques.resets import ResetConfig

MEASURES = {  # of a task, in the order of the figure
    "accuracy": "accuracy at the task's end",
    "online_accuracy": "accuracy, mean over its epochs",
    "dormant": "dormant units (share)",
    "srank": "srank of the features",
    "weight_norm": "weight norm",
}
TAU = 0.1  # of the dormant units that are counted


@dataclass(frozen=True)
class Config:
    """The problem, and what is done against the loss of plasticity: by default nothing."""

    tasks: int = 30
    inputs: int = 256  # points that are labelled
    size: int = 32  # numbers in one
    classes: int = 10
    hidden: int = 64  # units of each of two hidden layers
    epochs: int = 60  # a task
    batch: int = 32
    rate: float = 3e-3  # of Adam
    fresh: bool = False  # a new network for every task
    redo: ReDoConfig = field(default_factory=ReDoConfig)
    l2_init: float = 0.0
    spectral_norm: tuple[str, ...] = ()
    shrink: ResetConfig = field(default_factory=ResetConfig)  # between tasks, where `every` is not 0


METHODS: Mapping[str, Callable[[Config], Config]] = {
    "adam": lambda config: config,
    "fresh": lambda config: replace(config, fresh=True),
    "redo": lambda config: replace(config, redo=ReDoConfig(every=100, tau=TAU, batch=config.inputs)),
    "l2_init": lambda config: replace(config, l2_init=1e-3),
    "spectral_norm": lambda config: replace(config, spectral_norm=("two",)),
    "shrink_perturb": lambda config: replace(config, shrink=ResetConfig(every=1, shrink=0.8, perturb=0.2)),
}


class Net(nn.Module):
    """Two hidden layers with ReLU, [B, size] -> logits [B, classes]."""

    def __init__(self, config: Config, stream: Stream) -> None:
        super().__init__()
        self.one, self.two = Linear(config.size, config.hidden), Linear(config.hidden, config.hidden)
        self.head = Linear(config.hidden, config.classes)
        for layer in (self.one, self.two, self.head):
            layer.init_(stream)
        spectral_norm.attach_(self, config.spectral_norm)
        spectral_norm.iterate_(self, spectral_norm.START)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(F.relu(self.two(F.relu(self.one(x)))))
        return out


LINKS = (link("one", "two"), link("two", "head"))


def run(config: Config, seed: int) -> dict[str, list[float]]:
    """Every measure of every task, [tasks] each."""
    x = torch.from_numpy(Stream(seed, "inputs").normal(config.inputs, config.size))
    draws, batches, recycler = Stream(seed, "init"), Stream(seed, "batches"), Recycler(config.redo, seed)
    net = Net(config, draws)
    adam = torch.optim.Adam(net.parameters(), config.rate, fused=True)
    initial = l2_init.initial(net.named_parameters(), config.l2_init)
    found: dict[str, list[float]] = {name: [] for name in MEASURES}
    for task in range(config.tasks):
        label = torch.from_numpy(Stream(seed, "labels", task).integers(config.classes, config.inputs))
        if task and config.fresh:
            net = Net(config, draws)
            adam = torch.optim.Adam(net.parameters(), config.rate, fused=True)
        if task and config.shrink.every:
            resets.apply_(net, Net(config, draws), config.shrink)
            resets.clear_optimizer_(adam)
        accuracies = []
        for _ in range(config.epochs):
            order = torch.from_numpy(batches.uniform(config.inputs).argsort(kind="stable"))
            for rows in order.split(config.batch):
                adam.zero_grad()
                torch.autograd.backward(F.cross_entropy(net(x[rows]), label[rows]))
                if initial is not None:
                    initial.pull_(net.named_parameters())
                adam.step()
                spectral_norm.iterate_(net)
                recycler.tick()
                if recycler.due():
                    layers, _ = record(net, net, x)
                    recycler.recycle_(net, Net(config, recycler.stream), LINKS, layers, [adam])
            with torch.no_grad():
                accuracies.append(float((net(x).argmax(1) == label).double().mean()))
        layers, _ = record(net, net, x)
        measured = {
            "accuracy": accuracies[-1],
            "online_accuracy": float(np.mean(accuracies)),
            "dormant": plasticity.share(plasticity.dormant(h, TAU) for h in layers.values()),
            "srank": plasticity.srank(plasticity.singular_values(layers["two"])),
            "weight_norm": plasticity.norm(net.parameters()),
        }
        for name, value in measured.items():
            found[name].append(value)
    return found


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A panel a measure: the mean over seeds by task, and the range of the seeds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from rlplatform.evaluation.figures import FAINT, INK, PALETTE, SOFT
    from rlplatform.evaluation.plots import save

    fig = Figure(figsize=(10.4, 5.6), layout="constrained", facecolor="white", dpi=120)
    FigureCanvasAgg(fig)
    panels = fig.subplots(2, 3).ravel()
    for panel, (measure, words) in zip(panels, MEASURES.items(), strict=False):
        for k, method in enumerate(dict.fromkeys(row["method"] for row in rows)):
            values = np.array([row[measure] for row in rows if row["method"] == method])
            tasks = np.arange(1, values.shape[1] + 1)
            panel.fill_between(tasks, values.min(0), values.max(0), color=PALETTE[k], alpha=0.15, linewidth=0)
            panel.plot(tasks, values.mean(0), color=PALETTE[k], linewidth=1.7, label=method)
        panel.set_title(words, loc="left", fontsize=9.5, fontweight="bold", color=INK)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(colors=SOFT, labelsize=8.5)
        panel.grid(color=FAINT, linewidth=0.6)
        panel.set_xlabel("task", fontsize=8.5, color=SOFT)
    panels[-1].axis("off")
    panels[-1].legend(*panels[0].get_legend_handles_labels(), loc="center left", frameon=False, fontsize=9.5)
    save(fig, path)


def main() -> None:
    """Run, print a table, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=Config.tasks)
    parser.add_argument("--epochs", type=int, default=Config.epochs)
    parser.add_argument("--rate", type=float, default=Config.rate, help="of Adam")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "bench" / "results" / "probe.json")
    parser.add_argument("--plot", type=Path, help="also draw it, into a .png or .svg")
    given = parser.parse_args()
    torch.set_num_threads(1)
    base = Config(tasks=given.tasks, epochs=given.epochs, rate=given.rate)
    load = list(os.getloadavg())
    rows = []
    last = max(1, given.tasks // 5)  # the tasks that "late" is a mean of
    print(f"{'method':>16}  {'seed':>4}  {'first':>6}  {'late':>6}  {'dormant':>7}  {'srank':>5}  {'norm':>6}")
    for method in given.methods:
        for seed in range(given.seeds):
            found = run(METHODS[method](base), seed)
            rows.append({"method": method, "seed": seed, **found})
            late = {name: float(np.mean(values[-last:])) for name, values in found.items()}
            numbers = f"{found['accuracy'][0]:6.3f}  {late['accuracy']:6.3f}  {late['dormant']:7.3f}  {late['srank']:5.1f}  {late['weight_norm']:6.1f}"
            print(f"{method:>16}  {seed:>4}  {numbers}", flush=True)
    methods = {method: asdict(METHODS[method](base)) for method in given.methods}
    given.out.parent.mkdir(exist_ok=True, parents=True)
    result = {"methods": methods, "rows": rows, **provenance(), "load": load}
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    if given.plot is not None:
        draw(rows, given.plot)


if __name__ == "__main__":
    main()
