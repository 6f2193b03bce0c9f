"""The minatar package (Young and Tian), with the random numbers of a Philox stream in the place of numpy's."""

import numpy as np
from minatar import Environment

from reference.philox import block

NAMES = {
    "Asterix": "asterix",
    "Breakout": "breakout",
    "Freeway": "freeway",
    "Seaquest": "seaquest",
    "SpaceInvaders": "space_invaders",
}


class Draws:
    """What MinAtar asks of a RandomState, from the stream with this key: one block a number, in the order asked."""

    def __init__(self, key):
        self.key, self.counter = key, 0

    def rand(self, size=None):
        return self.uniform() if size is None else np.array([self.uniform() for _ in range(size)])

    def randint(self, low, high=None, size=None):
        low, high = (0, low) if high is None else (low, high)
        if size is None:
            return low + self.below(high - low)
        return np.array([low + self.below(high - low) for _ in range(size)])

    def uniform(self):
        high, low = self.pair()
        return ((high << 21) | (low >> 11)) / 2**53

    def below(self, bound):
        high, low = self.pair()
        return ((high << 32 | low) * bound) >> 64

    def pair(self):
        words = block(self.key, self.counter)
        self.counter += 1
        return words[0], words[1]


class Oracle:
    """One environment of the package, reset."""

    def __init__(self, game, key, sticky=0.1, ramping=True):
        self.minatar = Environment(NAMES[game], sticky_action_prob=sticky, difficulty_ramping=ramping)
        self.game = self.minatar.env
        self.draws = self.minatar.random = self.game.random = Draws(key)
        self.minatar.reset()

    def frame(self):
        """uint8 [channels, 10, 10]."""
        return np.uint8(255) * self.minatar.state().transpose(2, 0, 1)

    def step(self, action):
        """(reward, terminated, the frame that the step led to, the first of the next game where one has begun)."""
        reward, over = self.minatar.act(action)
        last = self.frame()
        if over:
            self.minatar.reset()
        return float(reward), bool(over), last, self.frame()
