"""What agents keep in their checkpoints, and how it comes back."""

import torch
from torch import nn

from rlplatform.streams import Stream
from rlplatform.techniques.checkpoint import load_moments, moments_of, switched_on
from rlplatform.techniques.pruning import Pruner, PruningConfig
from rlplatform.techniques.sigreg import SigReg, SigRegConfig


class Parts:
    """Two linear layers with an optimiser each, stepped by gradients of 1."""

    def __init__(self):
        self.net = nn.ModuleDict(
            {"one": nn.Linear(2, 3), "two": nn.Conv2d(1, 2, 2).to(memory_format=torch.channels_last)}
        )
        self.named = dict(self.net.named_parameters())
        self.optimizers = [torch.optim.Adam(part.parameters(), 0.1) for part in self.net.values()]

    def step(self, *which):
        for parameter in self.named.values():
            parameter.grad = torch.ones_like(parameter)
        for k in which:
            self.optimizers[k].step()

    def moments(self):
        return moments_of(self.named, *self.optimizers)


def test_moments_come_back_by_name_and_as_copies():
    one, other = Parts(), Parts()
    one.step(0, 1)
    one.step(1)
    there = one.moments()
    assert set(there) == set(one.named)
    assert there["one.bias"]["step"] == 1
    assert there["two.bias"]["step"] == 2
    load_moments(there, other.named, *other.optimizers)
    one.step(0, 1)
    other.step(0, 1)
    assert there["one.bias"]["step"] == 1
    for name, entry in one.moments().items():
        for key, value in entry.items():
            assert torch.equal(value, other.moments()[name][key])
            assert not torch.equal(value, there[name][key])
    state = other.optimizers[1].state[other.named["two.weight"]]
    assert state["exp_avg"].stride() == other.named["two.weight"].stride()


def test_what_was_never_stepped_is_not_there_and_clears_what_is():
    one, other = Parts(), Parts()
    one.step(1)
    assert {name.split(".")[0] for name in one.moments()} == {"two"}
    other.step(0, 1)
    load_moments(one.moments(), other.named, *other.optimizers)
    assert not other.optimizers[0].state
    assert {name.split(".")[0] for name in other.moments()} == {"two"}


def test_only_what_is_switched_on_is_kept():
    net = nn.Linear(4, 4)
    off = SigReg(SigRegConfig(), Stream(0, "sigreg")), {"pruning": Pruner(net, PruningConfig())}
    on = SigReg(SigRegConfig(weight=0.1), Stream(0, "sigreg")), {"pruning": Pruner(net, PruningConfig(0.5, end=10))}
    assert switched_on(*off) == {}
    assert switched_on(*on) == {"pruning": on[1]["pruning"], "sigreg": on[0]}
    assert set(switched_on(off[0], on[1])) == {"pruning"}
