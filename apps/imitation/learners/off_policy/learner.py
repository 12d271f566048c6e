"""The loop of learners that learn from a replay: act, step, store, update, log, call back, and go on after a stop.

At fixed numbers of steps, when the next episode has ended, the environments are reset by a seed made from the run's
seed and the steps so far, whether or not a checkpoint is written there. So nothing of an environment's own state has to
be kept, and a run that was killed and resumed ends with the numbers of one that never was.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar, Self

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback, ProgressBarCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.utils import configure_logger
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from core_models.errors import UserError
from core_models.files import require_writable
from core_models.training import seed_of
from core_models.training.checkpoint import Checkpoint, TrainingState, check_same, load_checkpoint, save_checkpoint

from ...spaces_as_json import Spaces
from ..spaces import as_vec_env, describe_env, from_unit, require_same
from .policy import SquashedPolicy
from .products import fast_products
from .replay import Replay
from .sac_update import SACUpdate

CHECK_EVERY = 1000
"""Steps between looks at whether all is finite; the policy at the last look is the last good one."""


class Diverged(UserError):
    """A loss, an action or a weight became NaN or infinite; the learner has its last good policy again.

    Attributes:
        step: where it was noticed [env steps].
        good_step: where the policy that is kept comes from.
    """

    def __init__(self, what: str, step: int, good_step: int) -> None:
        super().__init__(
            f"{what} is NaN or infinite at step {step:,}; the policy of step {good_step:,} is kept: begin again with a "
            "lower learning_rate"
        )
        self.step, self.good_step = step, good_step


class OffPolicyLearner(ABC):
    """What SAC and DAC share. Subclasses say what is stored, and what an update is."""

    NAME: ClassVar[str]
    METRICS: ClassVar[tuple[str, ...]]
    """Names of what `_update` returns."""

    update_networks: SACUpdate
    policy: SquashedPolicy
    replay: Replay

    def __init__(
        self,
        env: gym.Env | VecEnv | None,
        settings: dict[str, Any],
        *,
        seed: int,
        learning_starts: int,
        checkpoint_every: int,
        verbose: int,
        tensorboard_log: str | Path | None,
    ) -> None:
        self.env = None if env is None else as_vec_env(env)
        self.settings = {**settings, "learning_starts": learning_starts, "checkpoint_every": checkpoint_every}
        self.seed = seed
        self.learning_starts, self.checkpoint_every = learning_starts, checkpoint_every
        self.begun = 0
        """Steps that had been taken when `learn` was called last, or a run was gone on with [env steps]."""
        self.verbose, self.tensorboard_log = verbose, None if tensorboard_log is None else str(tensorboard_log)
        self.generator = torch.Generator().manual_seed(seed_of(seed, self.NAME, "learner"))
        self.num_timesteps = 0
        self._total_timesteps = 0
        self._logger: Logger | None = None
        self._episodes = 0
        self._finished: deque[tuple[float, int]] = deque(maxlen=100)
        self._sums, self._counted = torch.zeros(len(self.METRICS)), 0
        self._hook: Callable[[OffPolicyLearner], None] | None = None
        self.history: list[dict[str, float]] = []
        """A record of each line of the log."""

    @abstractmethod
    def _store(
        self, seen: np.ndarray, done: np.ndarray, after: np.ndarray, rewards: np.ndarray, ended: np.ndarray
    ) -> None:
        """Stores what one step in each environment brought (`ended`: by the environment, not by a time limit)."""

    @abstractmethod
    def _update(self) -> Tensor:
        """Updates the networks once and returns METRICS."""

    @abstractmethod
    def _tensors(self) -> dict[str, Tensor]:
        """Returns every tensor that training changes, but for the replay."""

    @abstractmethod
    def _take(self, tensors: dict[str, Tensor]) -> None:
        """Takes over what `_tensors` returned."""

    def _spaces_of(self, given: tuple[spaces.Space, spaces.Space] | None) -> tuple[spaces.Space, spaces.Space]:
        """Returns the spaces of the environments, which have to be those that a saved learner had."""
        if self.env is None:
            if given is None:
                raise UserError(
                    f"expected an environment to learn in; a saved {self.NAME} is opened by {self.NAME}.load"
                )
            return given
        own = (self.env.observation_space, self.env.action_space)
        require_same(Spaces(*(given or own)), self.env, self.NAME)
        return own

    def _require_all(self) -> None:
        if self.env is None:
            raise UserError(f"expected an environment to learn in: {self.NAME}.load(path, env=...)")

    def _data(self) -> dict[str, Any]:
        """Returns what identifies the data that is learnt from."""
        return {}

    @property
    def logger(self) -> Logger:
        """The logger of stable-baselines3."""
        if self._logger is None:
            self._logger = configure_logger(self.verbose, self.tensorboard_log, self.NAME, True)
        return self._logger

    def set_logger(self, logger: Logger) -> None:
        """Uses another logger."""
        self._logger = logger

    def get_env(self) -> VecEnv | None:
        """Returns the environments."""
        return self.env

    def set_env(self, env: gym.Env | VecEnv, force_reset: bool = True) -> None:
        """Learns in other environments from now on.

        Args:
            env: of the same spaces; any number of them.
            force_reset: as stable-baselines3's; `learn` begins with new episodes anyhow.

        Raises:
            UserError: when their spaces are others.
        """
        require_same(Spaces(self.policy.observation_space, self.policy.action_space), as_vec_env(env), self.NAME)
        self.env = as_vec_env(env)

    @property
    def ep_info_buffer(self) -> deque[dict[str, float]]:
        """Returns ("r") and lengths ("l") of the last episodes, as stable-baselines3's algorithms keep them."""
        return deque({"r": ret, "l": length} for ret, length in self._finished)

    def get_vec_normalize_env(self) -> None:
        """Returns None: normalisation is inside the learner."""
        return None

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Returns actions for one observation or several, and the state as it came."""
        return self.policy.predict(observation, deterministic=deterministic), state

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int | None = 4,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
        *,
        checkpoint: Path | str | None = None,
        resume: bool = False,
        after_log: Callable[[OffPolicyLearner], None] | None = None,
    ) -> Self:
        """Learns.

        Args:
            total_timesteps: environment steps of this call; with `resume`, of the whole run.
            callback: of stable-baselines3, or several, or a function of (locals, globals).
            log_interval: episodes between lines of the log.
            tb_log_name: name of the run in TensorBoard.
            reset_num_timesteps: False counts on.
            progress_bar: shows one.
            checkpoint: file that holds the run, written each `checkpoint_every` steps.
            resume: goes on from that file, where there is one.
            after_log: is given this learner after each line of the log.

        Raises:
            Diverged: when something became NaN or infinite.
            UserError: when there is no environment, or the checkpoint is of another run.
        """
        self._require_all()
        self._hook = after_log
        path = None if checkpoint is None else Path(checkpoint)
        if reset_num_timesteps:
            self.num_timesteps, self._episodes = 0, 0
            self._finished.clear()
            self.history = []
        total = total_timesteps + self.num_timesteps
        if path is not None:
            require_writable(path)
            if path.exists() and not resume:
                raise UserError(f"{path} already holds a run: resume it (resume=True), or choose another file")
            if path.exists():
                self._resume(path)
                total = total_timesteps
        self.begun = self.num_timesteps
        self._total_timesteps = total
        self._logger = configure_logger(
            self.verbose, self.tensorboard_log, tb_log_name or self.NAME, reset_num_timesteps and not resume
        )
        callbacks = as_callback(callback, progress_bar)
        callbacks.init_callback(self)  # type: ignore[arg-type]
        total_timesteps = total  # what a progress bar reads
        callbacks.on_training_start(locals(), globals())
        try:
            with torch.no_grad(), fast_products():
                self._loop(total, callbacks, log_interval, path)
                self._check()
        finally:
            callbacks.on_training_end()
        return self

    def _loop(self, total: int, callbacks: BaseCallback, log_interval: int | None, path: Path | None) -> None:
        env, n = self.env, self.env.num_envs  # type: ignore[union-attr]
        assert env is not None
        seen = self._restart(env)
        due = (self.num_timesteps // self.checkpoint_every + 1) * self.checkpoint_every
        check = self.num_timesteps + CHECK_EVERY
        returns, lengths = np.zeros(n), np.zeros(n, int)
        self._began, self._began_at = time.monotonic(), self.num_timesteps
        self._good = (self.num_timesteps, self._tensors_copied())
        while self.num_timesteps < total:
            callbacks.on_rollout_start()
            # callbacks look for SB3's own names: actions, buffer_actions, new_obs, rewards, dones, infos
            buffer_actions = self._explore(seen)
            actions = from_unit(buffer_actions, env.action_space)  # type: ignore[arg-type]
            new_obs, rewards, dones, infos = env.step(actions)
            assert isinstance(new_obs, np.ndarray)
            self.num_timesteps += n
            after, ended = new_obs, dones.copy()
            if dones.any():
                after = new_obs.copy()
                for i in np.flatnonzero(dones):
                    after[i] = infos[i]["terminal_observation"]
                    ended[i] = not infos[i].get("TimeLimit.truncated", False)
            self._store(seen, buffer_actions, after, rewards, ended)
            seen = new_obs
            returns += rewards
            lengths += 1
            callbacks.update_locals(locals())
            if not callbacks.on_step():
                return
            callbacks.on_rollout_end()
            if self.num_timesteps > self.learning_starts:
                for _ in range(n):
                    self._sums += self._update()
                self._counted += n
            if self.num_timesteps >= check:
                self._check()
                check = self.num_timesteps + CHECK_EVERY
            for i in np.flatnonzero(dones):
                self._finished.append((float(returns[i]), int(lengths[i])))
                returns[i], lengths[i] = 0, 0
                self._episodes += 1
                if log_interval and self._episodes % log_interval == 0:
                    self.dump_logs()
            # an environment that never ends an episode is cut off, which as a time limit is no end
            if self.num_timesteps >= due and (dones.any() or self.num_timesteps >= due + self.checkpoint_every):
                if path is not None:
                    self._check()
                    self._write(path)
                seen = self._restart(env)
                returns[:], lengths[:] = 0, 0
                due = (self.num_timesteps // self.checkpoint_every + 1) * self.checkpoint_every

    def _restart(self, env: VecEnv) -> np.ndarray:
        env.seed(seed_of(self.seed, "environment", self.num_timesteps) % 2**31)
        seen = env.reset()
        assert isinstance(seen, np.ndarray)
        return seen

    def _explore(self, seen: np.ndarray) -> np.ndarray:
        """Returns actions in [-1, 1], uniform ones at first."""
        noise = torch.empty(len(seen), self.policy.actions)
        if self.num_timesteps < self.learning_starts:
            return noise.uniform_(-1, 1, generator=self.generator).numpy()
        unit = self.policy.draw(seen, noise.normal_(generator=self.generator).numpy())
        if not np.isfinite(unit).all():
            self._diverge("an action")
        return unit

    def _check(self) -> None:
        """Makes sure that all is finite, and remembers it as the last that was."""
        if not bool(self._sums.isfinite().all()):
            self._diverge("a loss")
        tensors = self._tensors_copied()
        if not all(bool(tensor.isfinite().all()) for tensor in tensors.values() if tensor.is_floating_point()):
            self._diverge("a weight")
        self._good = (self.num_timesteps, tensors)

    def _diverge(self, what: str) -> None:
        step, (good_step, tensors) = self.num_timesteps, self._good
        self._take(tensors)
        self._sums.zero_()
        raise Diverged(what, step, good_step)

    def _tensors_copied(self) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in self._tensors().items()}

    def dump_logs(self) -> None:
        """Writes a line of the log: true returns, steps a second, means of METRICS since the last line."""
        log, record = self.logger, {"step": float(self.num_timesteps)}
        if self._finished:
            record["true_return"] = float(np.mean([ret for ret, _ in self._finished]))
            record["episode_length"] = float(np.mean([length for _, length in self._finished]))
            log.record("rollout/ep_rew_mean", record["true_return"])
            log.record("rollout/ep_len_mean", record["episode_length"])
        seconds = max(time.monotonic() - self._began, 1e-9)
        log.record("time/episodes", self._episodes, exclude="tensorboard")
        log.record("time/fps", (self.num_timesteps - self._began_at) / seconds)
        log.record("time/time_elapsed", int(seconds), exclude="tensorboard")
        log.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        if self._counted:
            for name, value in zip(self.METRICS, (self._sums / self._counted).tolist(), strict=True):
                log.record(name, value)
                record[name.split("/")[1]] = 100 * value if "accuracy" in name else value
            if self._sums.isfinite().all():  # else it is for the next check to see
                self._sums.zero_()
                self._counted = 0
        log.dump(self.num_timesteps)
        self.history.append(record)
        if self._hook is not None:
            self._hook(self)

    def _identity(self) -> dict[str, Any]:
        assert self.env is not None
        return {
            "objective": {"class": self.NAME},
            "config": {**self.settings, "seed": self.seed},
            "batches": {**describe_env(self.env), **self._data()},
        }

    def _write(self, path: Path) -> None:
        more = {"episodes": self._episodes, "finished": list(self._finished)}
        state = TrainingState(step=self.num_timesteps, metrics=[more, *self.history])
        tensors = {f"learner/{name}": tensor for name, tensor in self._tensors().items()}
        tensors |= {f"replay/{name}": tensor for name, tensor in self.replay.state().items()}
        tensors["random/generator"] = self.generator.get_state()
        save_checkpoint(path, Checkpoint(self._identity(), state, tensors))

    def _resume(self, path: Path) -> None:
        found = load_checkpoint(path)
        check_same(path, found.identity, self._identity())
        self._take(found.group("learner"))
        self.replay.restore(found.group("replay"))
        self.generator.set_state(found.group("random")["generator"])
        more, *self.history = found.state.metrics
        self.num_timesteps = found.state.step
        self._episodes = more["episodes"]
        self._finished.extend((ret, length) for ret, length in more["finished"])
        self._sums.zero_()
        self._counted = 0


def as_callback(callback: MaybeCallback, progress_bar: bool) -> BaseCallback:
    """Returns what `learn` was given as one callback of stable-baselines3."""
    some: list[BaseCallback] = []
    if isinstance(callback, Iterable):
        some += callback
    elif isinstance(callback, BaseCallback):
        some.append(callback)
    elif callback is not None:
        some.append(ConvertCallback(callback))
    if progress_bar:
        some.append(ProgressBarCallback())
    return CallbackList(some)
