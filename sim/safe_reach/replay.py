"""Recorded episodes and policies, run again in the direct environment."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from safe_policy_core.data.episodes import Episode, read_episode
from safe_policy_core.errors import ConfigurationError, DatasetError
from safe_policy_core.evaluation import EpisodeResult, rollout, summarize
from safe_policy_core.geometry import Pose
from safe_policy_core.methods.registry import load_policy
from safe_policy_core.safety.motion import CONTROL_PERIOD
from sim.safe_reach import task
from sim.safe_reach.environment import SafeReachEnv
from sim.safe_reach.layouts import sample_layout
from sim.safe_reach.state import STATE_SPECS, StateReachEnv
from sim.safe_reach.video import VIDEO_SIZE, enlarge, side_by_side, write_video

VIDEO_EPISODES = 3
"""Policy episodes shown in the video."""
LEAST_ERROR_SHOWN = 0.01
"""[m] Height of the error curve, unless the error is larger."""
LEAST_SPEED_SHOWN = 0.1
"""[m/s] The same of a policy's speed."""


def replay_episode(env: SafeReachEnv, episode: Episode, frames: list[np.ndarray] | None = None) -> dict[str, Any]:
    """Runs an episode's executed actions, of a real or a simulated arm, from its first pose in its scene.

    Returns the distance of the replayed from the recorded tool [m, rad] at each step and as mean and maximum, the share
    of steps in which reward and cost agree, and how both ended. Pairs of pictures are appended to `frames`. Raises
    `DatasetError` when it is no SafeReach episode.
    """
    seed, layout = _scene(episode)
    recorded = episode.observations["pose"]
    observation, _ = env.start(layout, seed, Pose.from_vector(recorded[0], np.array(task.NOMINAL_QUATERNION)))
    error, rewards, costs = [observation["pose"] - recorded[0]], [], []
    if frames is not None:
        frames.append(_pair(episode, error, env))
    for step, action in enumerate(episode.executed_action):
        observation, reward, cost, terminated, truncated, _ = env.step(action)
        error.append(observation["pose"] - recorded[step + 1])
        rewards.append(reward)
        costs.append(cost)
        if frames is not None:
            frames.append(_pair(episode, error, env))
        if terminated or truncated:
            break
    count = len(rewards)
    position, rotation = _norms(error)
    return {"task": episode.metadata["task"], "seed": seed, "steps": len(episode), "steps_replayed": count,
            "mean_position_error": float(position.mean()), "max_position_error": float(position.max()),
            "mean_rotation_error": float(rotation.mean()), "max_rotation_error": float(rotation.max()),
            "position_error": position.round(6).tolist(), "rotation_error": rotation.round(6).tolist(),
            "reward_agreement": float(np.mean(np.array(rewards) == episode.reward[:count])),
            "cost_agreement": float(np.mean(np.array(costs) == episode.cost[:count])),
            "success_recorded": bool(episode.reward.sum() > 0), "success": bool(np.sum(rewards) > 0),
            "violation_recorded": bool(episode.cost.sum() > 0), "violation": bool(np.sum(costs) > 0)}


def _scene(episode: Episode) -> tuple[int, task.Layout]:
    """The episode's seed and where its objects stood. Raises `DatasetError` naming what is missing or wrong."""
    metadata = episode.metadata
    if metadata.get("task") not in task.TASKS or "pose" not in episode.observations:
        raise DatasetError(f"task: expected a SafeReach episode with poses, got task {metadata.get('task')!r}")
    try:
        seed = int(metadata["seed"])
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"metadata seed: expected an integer ({error!r})") from error
    if not metadata.get("layout"):
        return seed, sample_layout(metadata["task"], seed)
    try:
        return seed, task.Layout.from_json(metadata["layout"])
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"metadata layout: expected the places of target and obstacles ({error!r})") from error


def _norms(error: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Differences of poses, (6,) each -> distances [m] and angles [rad]."""
    rows = np.array(error, float)
    return np.linalg.norm(rows[:, :3], axis=1), np.linalg.norm(rows[:, 3:], axis=1)


def _pair(episode: Episode, error: list[np.ndarray], env: SafeReachEnv) -> np.ndarray:
    """The recorded and the replayed picture of the newest observation, above the position error until then."""
    row = len(error) - 1
    image = episode.observations.get("image")
    left = np.zeros((VIDEO_SIZE, VIDEO_SIZE, 3), np.uint8) if image is None else enlarge(image[row], VIDEO_SIZE)
    position, rotation = _norms(error)
    text = f"step {row}: tool {1e3 * position[-1]:.1f} mm, {np.degrees(rotation[-1]):.1f} deg apart"
    return side_by_side(left, env.render(VIDEO_SIZE, VIDEO_SIZE), ("recorded", "replayed"), text, position.tolist(),
                        len(episode) + 1, LEAST_ERROR_SHOWN)


class ReplayReport:
    """Collects replays for one result and one video. One environment serves all tasks."""

    def __init__(self, record_video: bool) -> None:
        self._frames: list[np.ndarray] | None = [] if record_video else None
        self._rows: list[dict[str, Any]] = []
        self._policy: dict[str, Any] | None = None
        self._env = SafeReachEnv("original", images=False)

    def add_episode(self, path: Path) -> None:
        """Raises `DatasetError` naming the file that cannot be replayed."""
        episode = read_episode(path)
        try:
            self._rows.append({"path": str(path)} | replay_episode(self._env, episode, self._frames))
        except DatasetError as error:
            raise DatasetError(f"{path}: {error}") from error

    def add_policy(self, checkpoint: Path, task_name: str, seeds: Iterable[int], device: str) -> None:
        """Runs a checkpoint's policy deterministically, one episode per seed."""
        policy = load_policy(checkpoint, device)
        shape = policy.specs.observation["image"].shape if "image" in policy.specs.observation else None
        env: SafeReachEnv | StateReachEnv
        if policy.specs.observation == STATE_SPECS.observation:
            env = StateReachEnv(task_name)
        else:
            env = SafeReachEnv(task_name, images=shape is not None, image_size=shape[:2] if shape else (64, 64))
        if difference := env.specs.difference(policy.specs):
            raise ConfigurationError(f"policy {checkpoint}: made for other specs than SafeReach: {difference}")
        results: list[EpisodeResult] = []
        started = time.perf_counter()
        for index, seed in enumerate(tqdm(list(seeds), desc="policy", unit="episode", disable=None)):
            filmed = self._frames is not None and index < VIDEO_EPISODES
            results.append(rollout(env, policy, seed, on_step=self._film(env, seed) if filmed else None))
        env.close()
        self._policy = {"checkpoint": str(checkpoint), "task": task_name,
                        "seconds": round(time.perf_counter() - started, 2), **summarize(results).to_json()}

    def _film(self, env: SafeReachEnv | StateReachEnv, seed: int) -> Callable[[dict[str, Any]], None]:
        """What a policy's episode calls at each step: its own picture, the scene, and how fast it goes."""
        assert self._frames is not None
        frames, speeds, last = self._frames, [0.0], env.pose[:3]

        def film(info: dict[str, Any]) -> None:
            nonlocal last
            speeds.append(float(np.linalg.norm(env.pose[:3] - last)) / CONTROL_PERIOD)
            last = env.pose[:3]
            side = np.zeros((VIDEO_SIZE, VIDEO_SIZE, 3), np.uint8)
            if "image" in env.specs.observation:
                side = enlarge(env.render(*env.specs.observation["image"].shape[:2]), VIDEO_SIZE)
            text = (f"seed {seed}, step {len(speeds) - 1}: {speeds[-1]:.2f} m/s"
                    f"{', an obstacle was touched' if info['violation'] else ''}")
            frames.append(side_by_side(side, env.render(VIDEO_SIZE, VIDEO_SIZE), ("the policy sees", "policy"), text,
                                       speeds, task.EPISODE_STEPS + 1, LEAST_SPEED_SHOWN))

        return film

    def summary(self) -> dict[str, Any]:
        """Means over the replayed episodes, their rows, and the policy's summary."""
        result: dict[str, Any] = {"count": len(self._rows), "episodes": self._rows}
        if self._rows:
            for name in ("mean_position_error", "reward_agreement", "cost_agreement"):
                result[name] = float(np.mean([row[name] for row in self._rows]))
            result["max_position_error"] = max(row["max_position_error"] for row in self._rows)
        if self._policy is not None:
            result["policy"] = self._policy
        return result

    def write_video(self, path: Path) -> Path:
        """Raises `ConfigurationError` when the file cannot be written."""
        return write_video(path, self._frames or [])
