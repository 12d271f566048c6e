"""SB3's DummyVecEnv with less copying: half of a step's time around a fast environment is its `deepcopy`."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn


class SideBySide(DummyVecEnv):
    """The same steps. Observations, rewards and dones are copies, an info is a new dict of the same values.

    Unlike there, the last observation of an episode is kept from a reset that writes into the same array. An
    environment that changes a list or an array inside of an info that it has given away changes it for the learner too;
    DummyVecEnv copies these.
    """

    def step_wait(self) -> VecEnvStepReturn:
        """Steps each environment; begins anew where an episode ended."""
        for i, env in enumerate(self.envs):
            obs, self.buf_rews[i], terminated, truncated, info = env.step(self.actions[i])
            self.buf_dones[i] = over = terminated or truncated
            info = {**info, "TimeLimit.truncated": truncated and not terminated}
            if over:
                info["terminal_observation"] = deepcopy(obs)  # a reset may write into the same array
                obs, self.reset_infos[i] = env.reset()
            self.buf_infos[i] = info
            self._save_obs(i, obs)
        alone: Any = None  # the key of what is no dict of observations
        plain = self.buf_obs.get(alone)
        seen = self._obs_from_buf() if plain is None else plain.copy()
        return seen, np.copy(self.buf_rews), np.copy(self.buf_dones), [dict(info) for info in self.buf_infos]
