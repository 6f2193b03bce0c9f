"""Resets as a technique of their own, on an agent that is not ours."""

import numpy as np
import pytest
import torch
from torch import nn

from rlplatform.techniques import resets
from rlplatform.techniques.resets import ResetConfig, Schedule


def net(value):
    made = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)))
    for parameter in made.parameters():
        parameter.data.fill_(value)
    return made


def test_fresh_modules_start_anew_and_the_others_shrink():
    ours, fresh = net(2.0), net(10.0)
    resets.apply_(ours, fresh, ResetConfig(every=1, fresh=("2.1",), shrink=0.8, perturb=0.2))
    for name, parameter in ours.named_parameters():
        expected = 10.0 if name.startswith("2.1.") else 0.8 * 2.0 + 0.2 * 10.0
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-6, err_msg=name)
    assert all((p == 10.0).all() for p in fresh.parameters())


def test_a_name_is_a_module_and_not_a_prefix():
    ours = nn.ModuleDict({"head": nn.Linear(1, 1), "header": nn.Linear(1, 1)})
    fresh = nn.ModuleDict({"head": nn.Linear(1, 1), "header": nn.Linear(1, 1)})
    kept = ours["header"].weight.item()
    resets.apply_(ours, fresh, ResetConfig(fresh=("head",)))
    assert ours["header"].weight.item() == kept
    assert ours["head"].weight.item() == fresh["head"].weight.item()


def test_everything_is_named_by_its_parts():
    ours, fresh = net(2.0), net(10.0)
    resets.apply_(ours, fresh, ResetConfig(fresh=("0", "2")))
    assert all((p == 10.0).all() for p in ours.parameters())


def test_parameters_stay_where_they_are():
    ours = net(1.0)
    before = [p.data_ptr() for p in ours.parameters()]
    resets.apply_(ours, net(0.0), ResetConfig(fresh=("0",), shrink=0.5, perturb=0.5))
    assert [p.data_ptr() for p in ours.parameters()] == before


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_a_cleared_optimiser_goes_on_as_a_new_one(kind):
    used, new = net(1.0), net(1.0)
    optimizer, x = kind(used.parameters(), 0.1, fused=True), torch.ones(5, 3)
    for _ in range(3):
        optimizer.zero_grad()
        used(x).square().sum().backward()
        optimizer.step()
    places = [t.data_ptr() for s in optimizer.state.values() for t in s.values()]
    resets.clear_optimizer_(optimizer)
    assert [t.data_ptr() for s in optimizer.state.values() for t in s.values()] == places
    for a, b in zip(used.parameters(), new.parameters(), strict=True):
        a.data.copy_(b.data)
    fresh = kind(new.parameters(), 0.1, fused=True)
    for model, stepping in ((used, optimizer), (new, fresh)):
        stepping.zero_grad()
        model(x).square().sum().backward()
        stepping.step()
    assert all(torch.equal(a, b) for a, b in zip(used.parameters(), new.parameters(), strict=True))


def test_an_optimiser_whose_state_is_no_tensor_is_refused():
    ours = net(1.0)
    optimizer = torch.optim.LBFGS(ours.parameters())
    optimizer.state[next(iter(ours.parameters()))]["n_iter"] = 3
    with pytest.raises(TypeError, match="n_iter"):
        resets.clear_optimizer_(optimizer)


def test_the_schedule_and_its_limit():
    def at(period, until, steps):
        schedule = Schedule(period, until)
        return [step for step in steps if schedule.due(step)]

    assert at(10, 50, range(200)) == [11, 21, 31, 41]  # at 51 the run is over
    assert at(10, 49, range(200)) == [11, 21, 31]
    assert at(10, 20, range(200)) == [11]
    assert at(0, 100, range(200)) == []
    assert at(10, 50, range(0, 200, 7)) == [14, 21, 35, 42]  # rounds of 7 steps
    assert at(10, 100, [0, 35, 36, 40, 41]) == [35, 41]  # one reset for all that a round jumped over


def test_the_schedule_goes_on_from_its_state():
    schedule, other = Schedule(10, 100), Schedule(10, 100)
    assert schedule.due(25)
    other.load_state_dict(schedule.state_dict())
    assert not other.due(30)
    assert other.due(31)


def test_resets_that_never_come_are_refused():
    with pytest.raises(ValueError, match=r"resets every 10 agent steps never come with reset\.until = 19"):
        Schedule(10, 19)


def test_a_reset_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"reset\.every is set, but nothing would be reset"):
        ResetConfig(every=10)


@pytest.mark.parametrize(
    "wrong", [{"every": -1}, {"until": -1}, {"shrink": 1.5}, {"perturb": -0.1}, {"shrink": float("nan")}]
)
def test_a_configuration_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ResetConfig(**wrong)


def test_unknown_modules_are_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"no module 2\.7; there are 0, 1, 2, 2\.0, 2\.1"):
        resets.check_names(net(0.0), ResetConfig(fresh=("0", "2.7")))
    resets.check_names(net(0.0), ResetConfig(fresh=("0", "2.1")))
