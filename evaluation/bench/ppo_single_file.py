"""PPO in one file, as many people write and read it: the peer of `rlplatform bench ppo`, not a part of the platform.

The style is CleanRL's (`torch.distributions`, storage tensors, advantages in a Python loop, Adam and gradient clipping as torch has them
by default, a copy from numpy each step); the text is ours. It plays any gymnasium vector environment with same-step resets, merges time
limits with terminations as that style does, and makes the same networks and as many minibatches as the agent beside which it is timed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions.categorical import Categorical


@dataclass(frozen=True)
class Args:
    """What a script would take from its command line."""

    num_steps: int
    minibatch_size: int
    update_epochs: int
    learning_rate: float = 2.5e-4
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip_coef: float = 0.2
    ent_coef: float = 0.01
    vf_coef: float = 0.5
    max_grad_norm: float = 0.5


def layer_init(layer: Any, std: float = 2.0**0.5) -> Any:
    """Orthogonal weights, bias 0."""
    torch.nn.init.orthogonal_(layer.weight, std)
    torch.nn.init.constant_(layer.bias, 0.0)
    return layer


class Agent(nn.Module):
    """Networks for [stack, 84, 84] pixels, MinAtar's [1, channels, 10, 10], or vectors [1, inputs]."""

    def __init__(self, shape: tuple[int, ...], actions: int) -> None:
        super().__init__()
        self.bytes = len(shape) > 2
        if shape[-1] == 84:
            self.network = nn.Sequential(
                layer_init(nn.Conv2d(shape[0], 32, 8, stride=4)), nn.ReLU(), layer_init(nn.Conv2d(32, 64, 4, stride=2)), nn.ReLU(),
                layer_init(nn.Conv2d(64, 64, 3)), nn.ReLU(), nn.Flatten(), layer_init(nn.Linear(64 * 7 * 7, 512)), nn.ReLU(),
            )  # fmt: skip
            width = 512
        elif self.bytes:
            self.network = nn.Sequential(
                nn.Flatten(1, 2), layer_init(nn.Conv2d(shape[1], 16, 3)), nn.ReLU(), nn.Flatten(),
                layer_init(nn.Linear(1024, 128)), nn.ReLU(),
            )  # fmt: skip
            width = 128
        else:
            self.network, width = nn.Sequential(nn.Flatten()), 64
        inputs = int(np.prod(shape))
        self.actor = layer_init(nn.Linear(width, actions), std=0.01)
        self.critic = layer_init(nn.Linear(width, 1), std=1.0)
        if not self.bytes:
            self.actor, self.critic = (
                nn.Sequential(
                    layer_init(nn.Linear(inputs, 64)), nn.Tanh(), layer_init(nn.Linear(64, 64)), nn.Tanh(), head
                )
                for head in (self.actor, self.critic)
            )

    def hidden(self, x: Tensor) -> Tensor:
        out: Tensor = self.network(x.float() / 255.0 if self.bytes else x)
        return out

    def get_value(self, x: Tensor) -> Tensor:
        value: Tensor = self.critic(self.hidden(x))
        return value

    def get_action_and_value(self, x: Tensor, action: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        hidden = self.hidden(x)
        probs = Categorical(logits=self.actor(hidden))
        if action is None:
            action = probs.sample()
        return action, probs.log_prob(action), probs.entropy(), self.critic(hidden)


def make_turn(envs: gymnasium.vector.VectorEnv[Any, Any, Any], args: Args) -> Callable[[int], None]:
    """What plays and learns so many rounds each time it is called."""
    shape, num_envs = envs.single_observation_space.shape, envs.num_envs
    assert shape is not None
    agent = Agent(shape, int(envs.single_action_space.n))  # type: ignore[attr-defined]  # Discrete
    optimizer = torch.optim.Adam(agent.parameters(), lr=args.learning_rate, eps=1e-5)
    dtype = torch.uint8 if agent.bytes else torch.float32
    obs = torch.zeros((args.num_steps, num_envs, *shape), dtype=dtype)
    actions = torch.zeros((args.num_steps, num_envs), dtype=torch.int64)
    logprobs, rewards, dones, values = (torch.zeros((args.num_steps, num_envs)) for _ in range(4))
    next_obs = torch.tensor(envs.reset()[0])
    next_done = torch.zeros(num_envs)
    batch_size = args.num_steps * num_envs

    def turn(rounds: int) -> None:
        nonlocal next_obs, next_done
        for _ in range(rounds):
            for step in range(args.num_steps):
                obs[step], dones[step] = next_obs, next_done
                with torch.no_grad():
                    action, logprob, _, value = agent.get_action_and_value(next_obs)
                    values[step] = value.flatten()
                actions[step], logprobs[step] = action, logprob
                found, reward, terminated, truncated, _ = envs.step(action.numpy())
                rewards[step] = torch.tensor(reward).view(-1)
                next_obs, next_done = torch.tensor(found), torch.tensor(np.logical_or(terminated, truncated)).float()
            with torch.no_grad():
                next_value = agent.get_value(next_obs).reshape(1, -1)
                advantages, last = torch.zeros_like(rewards), torch.zeros(num_envs)
                for t in reversed(range(args.num_steps)):
                    nonterminal = 1.0 - (next_done if t == args.num_steps - 1 else dones[t + 1])
                    following = next_value if t == args.num_steps - 1 else values[t + 1]
                    delta = rewards[t] + args.gamma * following * nonterminal - values[t]
                    advantages[t] = last = delta + args.gamma * args.gae_lambda * nonterminal * last
                returns = advantages + values
            learn(agent, optimizer, args, obs.reshape(-1, *shape), actions.reshape(-1), logprobs.reshape(-1), advantages.reshape(-1), returns.reshape(-1), values.reshape(-1), batch_size)  # fmt: skip

    return turn


def learn(
    agent: Agent, optimizer: torch.optim.Optimizer, args: Args, b_obs: Tensor, b_actions: Tensor, b_logprobs: Tensor,
    b_advantages: Tensor, b_returns: Tensor, b_values: Tensor, batch_size: int,
) -> None:  # fmt: skip
    """The epochs of one round."""
    b_inds, clipfracs = np.arange(batch_size), []
    for _ in range(args.update_epochs):
        np.random.shuffle(b_inds)  # noqa: NPY002  # as the style has it
        for start in range(0, batch_size, args.minibatch_size):
            mb_inds = b_inds[start : start + args.minibatch_size]
            _, newlogprob, entropy, newvalue = agent.get_action_and_value(b_obs[mb_inds], b_actions[mb_inds])
            logratio = newlogprob - b_logprobs[mb_inds]
            ratio = logratio.exp()
            with torch.no_grad():
                _approx_kl = ((ratio - 1) - logratio).mean()
                clipfracs.append(((ratio - 1.0).abs() > args.clip_coef).float().mean().item())
            mb_advantages = b_advantages[mb_inds]
            mb_advantages = (mb_advantages - mb_advantages.mean()) / (mb_advantages.std() + 1e-8)
            clipped = torch.clamp(ratio, 1 - args.clip_coef, 1 + args.clip_coef)
            pg_loss = torch.max(-mb_advantages * ratio, -mb_advantages * clipped).mean()
            newvalue = newvalue.view(-1)
            near = b_values[mb_inds] + torch.clamp(newvalue - b_values[mb_inds], -args.clip_coef, args.clip_coef)
            unclipped, kept = (newvalue - b_returns[mb_inds]) ** 2, (near - b_returns[mb_inds]) ** 2
            v_loss = 0.5 * torch.max(unclipped, kept).mean()
            loss = pg_loss - args.ent_coef * entropy.mean() + v_loss * args.vf_coef
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(agent.parameters(), args.max_grad_norm)
            optimizer.step()
