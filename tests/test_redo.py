"""ReDo: which units begin anew, what happens to all others (nothing), and that the network's output stays."""

import numpy as np
import pytest
import torch
from torch import nn

from rlplatform.agents import mrq_net, ppo_config, ppo_net, pqn_net, sac, spr_config, spr_net
from rlplatform.agents.mrq_config import Config as MrqConfig
from rlplatform.replay import Replay
from rlplatform.streams import Stream
from rlplatform.techniques import redo
from rlplatform.techniques.activations import record
from rlplatform.techniques.redo import Into, Link, Recycler, ReDoConfig, link
from rlplatform.types import Rollout, Spec, empty_episodes


def net(value):
    made = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    for parameter in made.parameters():
        parameter.data.fill_(value)
    return made


def test_rows_begin_anew_and_columns_are_zero():
    ours, fresh = net(2.0), net(10.0)
    adam = torch.optim.Adam(ours.parameters(), 0.0, fused=True)
    ours(torch.ones(1, 3)).sum().backward()
    adam.step()
    moments = [adam.state[p] for p in ours.parameters()]
    before = [{key: value.clone() for key, value in of.items()} for of in moments]
    places = [p.data_ptr() for p in ours.parameters()]
    mask = torch.tensor([False, True, False, True])
    redo.recycle_(ours, fresh, [link("0", "2")], {"0": mask}, [adam])
    row = torch.where(mask, 10.0, 2.0)
    assert torch.equal(ours[0].weight, row[:, None].expand(4, 3))
    assert torch.equal(ours[0].bias, row)
    assert torch.equal(ours[2].weight, torch.where(mask, 0.0, 2.0).expand(2, 4))
    assert torch.equal(ours[2].bias, torch.full((2,), 2.0))
    assert all((p == 10.0).all() for p in fresh.parameters())
    assert [p.data_ptr() for p in ours.parameters()] == places
    kept = {0: ~mask[:, None].expand(4, 3), 1: ~mask, 2: ~mask.expand(2, 4), 3: torch.ones(2, dtype=torch.bool)}
    for i, (now, then) in enumerate(zip(moments, before, strict=True)):
        assert now["step"] == then["step"] == 1
        for key in ("exp_avg", "exp_avg_sq"):
            assert (then[key] != 0).all()
            assert torch.equal(now[key], torch.where(kept[i], then[key], 0.0)), (i, key)


def test_between_two_recycled_units_there_is_nothing():
    ours, fresh = (nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2), "c": nn.Linear(2, 1)}) for _ in range(2))
    masks = {"a": torch.tensor([True, False]), "b": torch.tensor([True, False])}
    redo.recycle_(ours, fresh, [link("b", "c"), link("a", "b")], masks, [])
    assert ours["b"].weight[0].tolist() == [0.0, fresh["b"].weight[0, 1].item()]
    assert ours["b"].weight[1, 0].item() == 0.0
    assert ours["c"].weight[0, 0].item() == 0.0


def test_a_module_may_take_units_among_its_first_inputs_and_a_layer_have_two_ways_in():
    made = {name: nn.Linear(i, o) for name, i, o in (("x", 1, 2), ("y", 1, 2), ("z", 6, 1))}
    ours, fresh = (
        nn.ModuleDict(made),
        nn.ModuleDict({name: nn.Linear(m.in_features, m.out_features) for name, m in made.items()}),
    )
    ours["z"].weight.data.fill_(1.0)
    mask = torch.tensor([False, True])
    redo.recycle_(ours, fresh, [Link("x", (Into("z", 4),), incoming=("x", "y"))], {"x": mask}, [])
    assert ours["z"].weight.tolist() == [[1.0, 0.0, 1.0, 0.0, 1.0, 1.0]]
    for name in ("x", "y"):
        assert torch.equal(ours[name].weight[1], fresh[name].weight[1])
        assert not torch.equal(ours[name].weight[0], fresh[name].weight[0])


PIXELS, GAME, VECTOR = (
    Spec((84, 84), "uint8", 4, 3),
    Spec((4, 10, 10), "uint8", 1, 3),
    Spec((5,), "float32", 1, 0, (2,)),
)


def spr_of(encoder, spec, **config):
    made = spr_net.Net(spr_config.Config(encoder=encoder, hidden=12, atoms=5, **config), spec, torch.float32)

    def forward(x):
        action = torch.zeros(len(x), dtype=torch.int64)
        return made(x, None), *([made.transition(made.latent(x), action)] if config.get("spr_steps") else [])

    return made, forward


def sac_of():
    made = sac.Net(sac.Config(hidden=9), VECTOR)

    def forward(x):
        mean, log_std = made.actor(x.flatten(1))
        return mean, log_std, made.critic(x.flatten(1), torch.tanh(mean))

    return made, forward


def ppo_of(spec, **config):
    made = ppo_net.Net(ppo_config.Config(hidden=9, layers=2, **config), spec)
    return made, made


NETS = {
    "nature": lambda: (*spr_of("nature", PIXELS, sigma0=0.1), PIXELS), "impala": lambda: (*spr_of("impala", PIXELS, sigma0=0.0), PIXELS),
    "spr": lambda: (*spr_of("nature", PIXELS, sigma0=0.0, spr_steps=2), PIXELS), "minatar": lambda: (*spr_of("minatar", GAME, sigma0=0.0), GAME),
    "sac": lambda: (*sac_of(), VECTOR),
    "ppo": lambda: (*ppo_of(PIXELS, shared=False), PIXELS), "ppo_shared": lambda: (*ppo_of(GAME, encoder="minatar"), GAME),
    "ppo_vectors": lambda: (*ppo_of(VECTOR, encoder="flatten"), VECTOR),
}  # fmt: skip


@pytest.mark.parametrize("kind", NETS)
def test_recycling_dead_units_leaves_the_output_as_it_was(kind):
    """To the bit: what was 0 times a weight is now a value times 0. Every layer has two dead units. With SPR the latent that follows stays,
    too; what is predicted from that one need not, since the new units' columns are 0 for imagined latents as well."""
    ours, forward, spec = NETS[kind]()
    fresh = NETS[kind]()[0]
    ours.init_(Stream(0, "init"))
    fresh.init_(Stream(0, "redo"))
    links = ours.links()
    units = {}
    for of in links:
        bias = next(p for name, p in ours.get_submodule(of.layer).named_parameters() if name in ("bias", "bias_mu"))
        units[of.layer] = len(bias)
        bias.data[1] = bias.data[-2] = -1e6
    numbers = Stream(0, "obs").uniform(3, spec.stack, *spec.frame_shape)
    obs = torch.from_numpy(
        (numbers * 255).astype(np.uint8) if spec.frame_dtype == "uint8" else numbers.astype(np.float32)
    )
    layers, before = record(ours, forward, obs)
    chosen = {of.layer: (layers[of.layer] == 0).transpose(0, 1).flatten(1).all(1) for of in links}
    assert all(chosen[layer][1] and chosen[layer][-2] for layer in chosen)
    assert {layer: len(mask) for layer, mask in chosen.items()} == units
    redo.recycle_(ours, fresh, links, chosen, [])
    layers, after = record(ours, forward, obs)
    for a, b in zip(before, after, strict=True):
        assert torch.equal(a, b)
    for of in links:
        assert (layers[of.layer][:, [1, -2]] != 0).any(), f"{of.layer}: its new units say nothing"


def test_a_feature_map_has_a_column_for_each_of_its_places():
    ours, _ = spr_of("minatar", GAME, sigma0=0.0)
    ours.init_(Stream(0, "init"))
    before = ours.projection.weight.detach().clone()
    mask = torch.arange(16) == 5
    redo.recycle_(ours, ours, [ours.links()[0]], {"encoder": mask}, [])
    changed = (ours.projection.weight != before).any(0).reshape(8, 8, 16)  # places first
    assert torch.equal(changed, mask.expand(8, 8, 16))


@pytest.mark.parametrize(
    ("encoder", "spec"), [("nature", PIXELS), ("minatar", GAME), ("flatten", Spec((5,), "float32", 1, 3))]
)
def test_units_of_pqn_begin_anew_with_their_layer_norm(encoder, spec):
    """Every layer's unit 1: its rows, bias, scale and shift, and its columns in the next layer; nothing else."""
    ours, fresh = (pqn_net.Net(encoder, 1, 12, 2, spec) for _ in range(2))
    for value, made in ((1.0, ours), (2.0, fresh)):
        for parameter in made.parameters():
            parameter.data.fill_(value)
    obs = torch.ones(2, spec.stack, *spec.frame_shape)
    layers, _ = record(ours, ours, obs)
    links = ours.links()
    assert [of.layer for of in links] == list(layers)
    redo.recycle_(ours, fresh, links, {of.layer: torch.arange(layers[of.layer].shape[1]) == 1 for of in links}, [])
    blocks, convs = [*ours.convs, *ours.hidden], len(ours.convs)
    units = [layers[of.layer].shape[1] for of in links]
    for i, block in enumerate(blocks):
        for parameter in block.parameters():
            assert (parameter[1] != 1.0).all()
            if parameter.ndim == 1:
                assert parameter.tolist() == [2.0 if unit == 1 else 1.0 for unit in range(len(parameter))]
        weight = block.weight if i < convs else block.linear.weight
        if i:  # its inputs end with the channels of the layer before, places first
            last = weight.permute(0, 2, 3, 1) if weight.ndim > 2 else weight.unflatten(1, (-1, units[i - 1]))
            assert (last[..., 1] == 0.0).all()
            rest = torch.arange(last.shape[-1]) != 1
            assert (last[0][..., rest] == 1.0).all()
            assert (last[1][..., rest] == 2.0).all()
    assert torch.equal(ours.head.weight, torch.where(torch.arange(12) == 1, 0.0, 1.0).expand(3, 12))
    assert (ours.head.bias == 1.0).all()


@pytest.mark.parametrize(("encoder", "spec"), [("nature", PIXELS), ("minatar", GAME), ("flatten", VECTOR)])
@pytest.mark.parametrize("shared", [True, False])
def test_links_of_ppo_are_its_hidden_layers(encoder, spec, shared):
    made, forward = ppo_of(spec, encoder=encoder, shared=shared)
    made.init_(Stream(0, "init"))
    layers, _ = record(made, forward, torch.ones(1, spec.stack, *spec.frame_shape))
    assert [of.layer for of in made.links()] == list(layers)


@pytest.mark.parametrize("spec", [VECTOR, PIXELS, Spec((5,), "float32", 1, 4)])
def test_links_of_mrq_are_its_hidden_layers(spec):
    """All that have an activation, but for the embeddings, whose units others are trained to predict."""
    made = mrq_net.Net(MrqConfig(hidden=8, action_embedding=4), spec, torch.float32)
    assert [of.layer for of in made.links() if made.get_submodule(of.layer).weight.shape[0] not in (4, 8, 32)] == []
    names = {of.layer for of in made.links()}
    states = {"conv1", "conv2", "conv3", "conv4"} if spec == PIXELS else {"linear1", "linear2"}
    assert names == {
        *(f"encoder.state.{name}" for name in states), "encoder.action", "encoder.pair_state", "encoder.pair2", "policy.linear1",
        "policy.linear2", *(f"value.{v}.linear{i}" for v in ("first", "second") for i in (1, 2, 3)),
    }  # fmt: skip
    for of in made.links():
        units = made.get_submodule(of.layer).weight.shape[0]
        for module, inputs in of.into:
            assert (inputs or made.get_submodule(module).weight.shape[1]) % units == 0
        assert {made.get_submodule(name).weight.shape[0] for name in of.incoming} <= {units}


def test_it_is_due_every_so_many_gradient_steps():
    recycler = Recycler(ReDoConfig(every=5), 0)
    due = []
    for step in range(1, 30):
        recycler.tick()
        if step % 3 == 0 and recycler.due():  # rounds of three gradient steps
            due.append(step)
    assert due == [6, 12, 18, 24]
    each = Recycler(ReDoConfig(every=5), 0)
    ticks = [each.tick() or each.due() for _ in range(12)]
    assert [step for step, was_due in enumerate(ticks, start=1) if was_due] == [5, 10]
    never = Recycler(ReDoConfig(), 0)
    never.tick(10**6)
    assert not never.due()


def filled():
    spec = Spec((1,), "float32", 1, 2)
    replay = Replay(spec, 40, 1, 1)
    zero, none = np.zeros((30, 1)), np.zeros((0, 1), np.float32)
    frame = np.arange(30, dtype=np.float32)[:, None, None]
    first = zero.astype(bool)
    first[0] = True
    replay.add(Rollout(frame, first, zero.astype(np.int64), zero.astype(np.float32), zero.astype(bool), zero.astype(bool), none, np.zeros((0, 2), np.int64), {}, empty_episodes(), 0, 0))  # fmt: skip
    return replay


def test_observations_are_uniform_over_what_can_be_sampled_and_no_other_stream_moves():
    """Of 29 items each: 5 sigma of a binomial."""
    replay, recycler = filled(), Recycler(ReDoConfig(every=1, batch=5_000), 3)
    before = replay.stream.state_dict()
    seen = recycler.observations(replay)
    assert seen.shape == (5_000, 1, 1)
    count = np.bincount(seen.flatten().long(), minlength=30)
    assert count[29] == 0  # its next observation is not there yet
    p = 1 / 29
    assert (np.abs(count[:29] - 5_000 * p) < 5 * np.sqrt(5_000 * p * (1 - p))).all()
    assert replay.stream.state_dict() == before
    other = Recycler(ReDoConfig(every=1, batch=5_000), 3)
    assert torch.equal(other.observations(replay), seen)
    other.load_state_dict(recycler.state_dict())
    assert torch.equal(other.observations(replay), recycler.observations(replay))


def test_what_is_recycled_is_dormant_and_counted():
    ours, fresh = net(1.0), net(10.0)
    recycler = Recycler(ReDoConfig(every=1, tau=0.25), 0)
    h = torch.tensor([[4.0, 1.0, 0.0, 1.0], [4.0, 0.0, 0.0, 1.0]])  # means 4, 1/2, 0, 1: scores 2.9, 0.36, 0, 0.73
    recycler.recycle_(ours, fresh, [link("0", "2")], {"0": h}, [])
    assert ours[0].bias.tolist() == [1.0, 1.0, 10.0, 1.0]
    Recycler(ReDoConfig(every=1, tau=0.4), 0).recycle_(ours, fresh, [link("0", "2")], {"0": h}, [])
    assert ours[0].bias.tolist() == [1.0, 10.0, 10.0, 1.0]
    assert recycler.count == 1


@pytest.mark.parametrize("wrong", [{"every": -1}, {"tau": -0.1}, {"tau": float("nan")}, {"batch": 0}])
def test_a_configuration_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match=f"redo.{next(iter(wrong))}"):
        ReDoConfig(**wrong)
