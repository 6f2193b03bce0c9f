"""What agents keep in their checkpoints, and how it comes back."""

import torch
from torch import nn

from rlplatform.streams import Stream
from rlplatform.techniques import spectral_norm
from rlplatform.techniques.checkpoint import Techniques, load_moments, moments_of
from rlplatform.techniques.l2_init import Initial
from rlplatform.techniques.pruning import Pruner, PruningConfig
from rlplatform.techniques.redo import Recycler, ReDoConfig
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
    on = (
        SigReg(SigRegConfig(weight=0.1), Stream(0, "sigreg")),
        {"pruning": Pruner(net, PruningConfig(sparsity=0.5, end=10))},
    )
    never, often = Recycler(ReDoConfig(), 0), Recycler(ReDoConfig(every=5), 0)
    assert Techniques({"online": net}, *off, never, None).state_dict() == {}
    state = Techniques({"online": net}, *on, often, Initial(net.named_parameters(), 0.1)).state_dict()
    assert set(state) == {"pruning", "sigreg", "redo", "initial"}
    assert set(Techniques({}, off[0], on[1]).state_dict()) == {"pruning"}
    nets = {"online": nn.Sequential(nn.Linear(4, 4))}
    spectral_norm.attach_(nets["online"], ("0",))
    assert set(Techniques(nets, *off).state_dict()) == {"spectral_norm"}


def test_what_was_kept_comes_back():
    net = nn.Linear(4, 4)
    on, other = (SigReg(SigRegConfig(weight=0.1), Stream(seed, "sigreg")) for seed in (0, 1))
    one, two = Recycler(ReDoConfig(every=5), 0), Recycler(ReDoConfig(every=5), 0)
    one.count = 7
    state = Techniques({"online": net}, on, {}, one).state_dict()
    Techniques({"online": net}, other, {}, two).load_state_dict(state)
    assert two.count == 7
    features = torch.randn(8, 4)
    assert torch.equal(other.parts(features).real, on.parts(features).real)
