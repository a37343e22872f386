"""The four interfaces everything hangs on: `Spec`, `Policy`, `RobotEnv`, `Learner`.

Any policy runs in any environment, because both speak in `Spec`s, and specs are
checked at every boundary. Nothing here knows ROS, a simulator, or a wall clock.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from safe_policy_core.errors import SpecError

Observation = dict[str, np.ndarray]


@dataclass(frozen=True)
class Spec:
    """Name, shape, dtype, bounds and unit of one array. Declared once, at the source.

    `low` and `high` are scalars or one number per element; None means unbounded. Bounds are
    inclusive and in `unit` ("m", "rad", "1" for dimensionless, "m, rad" for poses).
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    low: float | tuple[float, ...] | None = None
    high: float | tuple[float, ...] | None = None
    unit: str = "1"

    def validate(self, value: Any) -> np.ndarray:
        """Returns `value` as an array of this spec, or raises `SpecError` that names the field.

        Integers may not stand in for images and floats must be finite; a float of another
        width is converted, any other dtype is refused.
        """
        array = np.asarray(value)
        expected = np.dtype(self.dtype)
        if array.shape != self.shape:
            raise SpecError(f"{self.name}: expected shape {self.shape}, got {array.shape}")
        if array.dtype != expected:
            if not (expected.kind == "f" and array.dtype.kind in "fiu"):
                raise SpecError(f"{self.name}: expected dtype {self.dtype}, got {array.dtype}")
            array = array.astype(expected)
        if expected.kind == "f" and not np.isfinite(array).all():
            raise SpecError(f"{self.name}: expected finite numbers, got {_short(array)}")
        if self.low is not None and (array < np.asarray(self.low, expected)).any():
            raise SpecError(f"{self.name}: expected at least {self.low} [{self.unit}], got {_short(array)}")
        if self.high is not None and (array > np.asarray(self.high, expected)).any():
            raise SpecError(f"{self.name}: expected at most {self.high} [{self.unit}], got {_short(array)}")
        return array

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready description, the form kept in checkpoints and episode files."""
        def plain(bound: float | tuple[float, ...] | None) -> Any:
            return list(bound) if isinstance(bound, tuple) else bound

        return {"name": self.name, "shape": list(self.shape), "dtype": self.dtype,
                "low": plain(self.low), "high": plain(self.high), "unit": self.unit}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Spec:
        """Inverse of `to_json`."""
        def bound(value: Any) -> float | tuple[float, ...] | None:
            return tuple(value) if isinstance(value, list) else value

        return cls(data["name"], tuple(data["shape"]), data["dtype"],
                   bound(data["low"]), bound(data["high"]), data["unit"])


def _short(array: np.ndarray) -> str:
    text = np.array2string(array, precision=4, threshold=8, separator=", ").replace("\n", "")
    return text if len(text) <= 120 else text[:117] + "..."


@dataclass(frozen=True)
class Specs:
    """What an environment shows and takes: observation specs by name, and the action spec.

    `scales` holds what an action of 1 means physically, by name and in SI units (for an arm
    `max_translation_step` [m] and `max_rotation_step` [rad]); empty for tasks without a scale.
    """

    observation: dict[str, Spec]
    action: Spec
    scales: dict[str, float] = field(default_factory=dict)

    def validate_observation(self, observation: Mapping[str, Any]) -> Observation:
        """Checks every field; missing and unexpected fields are named. Raises `SpecError`."""
        if missing := self.observation.keys() - observation.keys():
            raise SpecError(f"observation: missing {sorted(missing)}, expected {sorted(self.observation)}")
        if extra := observation.keys() - self.observation.keys():
            raise SpecError(f"observation: unexpected {sorted(extra)}, expected {sorted(self.observation)}")
        return {name: spec.validate(observation[name]) for name, spec in self.observation.items()}

    def to_json(self) -> dict[str, Any]:
        return {"observation": {name: spec.to_json() for name, spec in self.observation.items()},
                "action": self.action.to_json(), "scales": dict(self.scales)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Specs:
        return cls({name: Spec.from_json(spec) for name, spec in data["observation"].items()},
                   Spec.from_json(data["action"]), dict(data["scales"]))

    def difference(self, other: Specs) -> str | None:
        """Names the first field in which `other` differs from this, or None when they are equal."""
        mine, theirs = self.to_json(), other.to_json()
        for group in ("observation", "scales"):
            for name in sorted(mine[group].keys() | theirs[group].keys()):
                if mine[group].get(name) != theirs[group].get(name):
                    return f"{group} {name}: {mine[group].get(name)} against {theirs[group].get(name)}"
        if mine["action"] != theirs["action"]:
            return f"action: {mine['action']} against {theirs['action']}"
        return None


@dataclass(frozen=True)
class ActionDecision:
    """An action and what a monitor wants to know about it.

    action: (action_dim,) float32 in the action spec's bounds.
    value, cost_value: discounted reward and cost to come under the policy, or None.
    violation_probability: the method's estimate in [0, 1] (FOSP eq. 30, or its table map's), or None.
    chosen_policy: which of several policies acted ("offline" or "online" under policy expansion, "map").
    """

    action: np.ndarray
    value: float | None = None
    cost_value: float | None = None
    violation_probability: float | None = None
    chosen_policy: str = "policy"


class Policy(ABC):
    """Acts from observations. Recurrent state lives inside and is cleared by `reset`."""

    specs: Specs

    @abstractmethod
    def reset(self, seed: int) -> None:
        """Starts an episode: clears recurrent state and seeds every random draw until the next reset."""

    @abstractmethod
    def act(self, observation: Observation, deterministic: bool = False) -> ActionDecision:
        """One control step. Raises `SpecError` when the observation is not of `specs`."""

    def observe_executed(self, action: np.ndarray) -> None:  # noqa: B027 (right for policies without memory)
        """Tells the policy which action really ran, when limits or a person changed it.

        Called after a step and before the next `act`. Recurrent policies must condition on
        this action; the default ignores it, which is right for policies without memory.
        """

    def observe_outcome(self, reward: float, cost: float) -> None:  # noqa: B027 (right for policies without targets)
        """Tells the policy what the step brought, after it and before the next `act`.

        Policies that act under a return and a cost to go count them down; the default ignores both.
        """


@runtime_checkable
class TakesTargets(Protocol):
    """A policy whose cost threshold can be changed without training, from the next episode on (QPT, CDT).

    None is the threshold that it was trained with.
    """

    def set_target_cost(self, cost: float | None, target_return: float | None = None) -> None: ...


@runtime_checkable
class Aligns(Protocol):
    """A policy that prepares an episode from its first observation, after `reset` and before the first `act` (SAS).

    Where nobody calls `align`, the first `act` does and takes as much longer. It returns what was chosen, for a log.
    """

    def align(self, observation: Observation) -> dict[str, Any]: ...


StepResult = tuple[Observation, float, float, bool, bool, dict[str, Any]]


class RobotEnv(ABC):
    """Safety-Gymnasium's six-value step over specs.

    `info["executed_action"]` is the action that really ran after every limit, in the action
    spec's scale; learning uses it. `info["filter_reason"]` says why it differs from the
    requested one ("" when it does not). `terminated` and `truncated` are never merged. Tasks
    that know them set the bools `info["success"]` and `info["violation"]` (any cost so far).
    """

    specs: Specs

    @abstractmethod
    def reset(self, seed: int) -> tuple[Observation, dict[str, Any]]:
        """Starts the episode that `seed` fixes. Returns the first observation and info."""

    @abstractmethod
    def step(self, action: np.ndarray) -> StepResult:
        """(observation, reward, cost, terminated, truncated, info).

        Raises `SpecError` for an action of wrong shape or dtype, out of bounds, or not finite,
        and `RuntimeError` before the first reset or after the end of an episode.
        """

    def close(self) -> None:  # noqa: B027 (an environment without resources has nothing to close)
        """Frees what the environment holds. May be called twice."""


@runtime_checkable
class Learner(Protocol):
    """A method in training. `update` is one gradient step on a batch of sequences."""

    specs: Specs

    def update(self, batch: Mapping[str, np.ndarray]) -> dict[str, float]:
        """One training step. Returns metrics by name."""
        ...

    def policy(self) -> Policy:
        """The current policy, sharing the learner's weights."""
        ...

    def save(self, directory: Path) -> None:
        """Writes a checkpoint from which `load` continues exactly."""
        ...

    def load(self, directory: Path) -> None:
        """Restores a checkpoint strictly. Raises `CheckpointError` naming the field that differs."""
        ...
