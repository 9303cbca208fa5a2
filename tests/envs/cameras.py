"""Environments that see and show pictures whose every pixel is known."""

import gymnasium
import numpy as np


def picture(episode, t, shape):
    """Pixels of channel c are ``10 * episode + t + 80 * c``."""
    image = np.full((*shape[:2], 1), 10 * episode + t, np.uint8)
    if len(shape) == 2:
        return image[:, :, 0]
    return image + 80 * np.arange(shape[2], dtype=np.uint8)


class Camera(gymnasium.Env):
    """Episodes of ``length`` steps, ended by a terminal or by a limit; the reward of step t is t.

    ``render`` shows grey pictures, 20 times t. Counting of episodes begins with 0.
    """

    action_space = gymnasium.spaces.Discrete(2)
    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, length=5, limit=False, shape=(16, 18, 3), render_mode="rgb_array", size=(24, 32)):
        self.length, self.limit, self.shape, self.size, self.render_mode = length, limit, shape, size, render_mode
        self.observation_space = gymnasium.spaces.Box(0, 255, shape, np.uint8)
        self.episode, self.t, self.actions, self.seeds, self.renders = -1, 0, [], [], 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        self.seeds.append(seed)
        return picture(self.episode, 0, self.shape), {"fresh": True}

    def step(self, action):
        self.actions.append(action)
        self.t += 1
        over = self.t == self.length
        observation = picture(self.episode, self.t, self.shape)
        return observation, float(self.t), over and not self.limit, over and self.limit, {"t": self.t}

    def render(self):
        self.renders += 1
        return np.full((*self.size, 3), 20 * self.t, np.uint8)


class OldCamera:
    """The camera with the 4-tuple API, which seeds by ``seed`` and is told the mode when it renders."""

    def __init__(self, *args, **kwargs):
        self.camera = Camera(*args, **kwargs)
        self.observation_space, self.action_space = self.camera.observation_space, self.camera.action_space

    def seed(self, seed):
        self.camera.seeds.append(seed)

    def reset(self):
        return self.camera.reset()[0]

    def step(self, action):
        observation, reward, terminated, truncated, _ = self.camera.step(action)
        return observation, reward, terminated or truncated, {"TimeLimit.truncated": truncated}

    def render(self, mode="human"):
        return self.camera.render() if mode == "rgb_array" else None


class BreaksAt(gymnasium.Wrapper):
    """The step of that number raises an error."""

    def __init__(self, env, step):
        super().__init__(env)
        self.left = step

    def step(self, action):
        self.left -= 1
        if self.left == 0:
            raise ZeroDivisionError("the robot fell over")
        return super().step(action)
