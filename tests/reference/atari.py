"""One Atari environment by the protocol's words, with ALE's own gray screens and OpenCV's resize: the slow and plain way."""

import ale_py
import cv2
import numpy as np
from ale_py import roms


class Game:
    """`stream` has integers(bound, 1) and uniform(n): what the environment under test draws from."""

    def __init__(self, rom, protocol, stream):
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self.ale = ale_py.ALEInterface()
        self.ale.setFloat("repeat_action_probability", 0.0)
        self.ale.setInt("random_seed", 123)  # another than the environment's: nothing may depend on it
        self.ale.loadROM(roms.get_rom_path(rom))
        legal = self.ale.getLegalActionSet() if protocol.full_action_set else self.ale.getMinimalActionSet()
        self.actions = list(legal)
        self.protocol, self.stream = protocol, stream

    def begin(self):
        p = self.protocol
        noops = p.noop_min + int(self.stream.integers(p.noop_max - p.noop_min + 1, 1)[0])
        self.restart()
        screens = [self.ale.getScreenGrayscale()]
        for _ in range(noops):
            if p.noop_unit == "step":
                _, _, over, screens = self.frames([ale_py.Action.NOOP] * p.frame_skip)
            else:
                self.ale.act(ale_py.Action.NOOP)
                self.lives = self.ale.lives()
                over, screens = self.ale.game_over(), [self.ale.getScreenGrayscale()]
            if over:
                self.restart()
                screens = [self.ale.getScreenGrayscale()]
                break
        self.steps = 0
        return self.shown(screens)

    def restart(self):
        self.ale.reset_game()
        self.lives = self.ale.lives()
        self.previous = ale_py.Action.NOOP

    def step(self, action):
        """(frame, reward, terminated, truncated, does the game restart)."""
        p = self.protocol
        wanted = [self.actions[action]] * p.frame_skip
        if p.sticky:
            draws = self.stream.uniform(p.frame_skip)
            before = self.previous
            for k in range(p.frame_skip):
                if draws[k] < p.sticky:
                    wanted[k] = before
                before = wanted[k]
        reward, lost, over, screens = self.frames(wanted)
        self.steps += 1
        terminated = over or (p.life_loss_terminal and lost)
        out_of_time = self.steps == p.episode_steps
        return self.shown(screens), reward, terminated, out_of_time and not terminated, over or out_of_time

    def frames(self, actions):
        p = self.protocol
        reward, lost, screens, over = 0, False, [], False
        for action in actions:
            reward += self.ale.act(action)
            self.previous = action
            lives = self.ale.lives()
            lost |= lives < self.lives
            self.lives = lives
            over = self.ale.game_over()
            screens.append(self.ale.getScreenGrayscale())
            if over or (lost and p.life_loss_terminal and p.stop_skip_at_life_loss):
                break
        whole = len(screens) == len(actions)
        return reward, lost, over, screens[-2:] if whole else screens[-1:]

    def shown(self, screens):
        size = self.protocol.frame_size
        return cv2.resize(np.max(screens, axis=0), (size, size), interpolation=cv2.INTER_AREA)
