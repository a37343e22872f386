"""Demonstrators of PointCircle1 and of the velocity tasks: linear policies found by `sim.collectors.evolution`, the
Humanoid's by `sim.collectors.standing`.

What they do follows from what they observe, so that it can be imitated. Scripted drivers, which know the layout, could
not be: clones of those that hardly left PointCircle1's track paid 7 to 230 an episode, over 30 in 12 of 13 attempts.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from safe_policy_core.interfaces import Observation
from sim.collectors.controller import ActionNoise
from sim.safety_gymnasium import SafetyGymnasiumEnv

FILE = "gaits.json"
CHEAP = 0.5
"""Share of the episodes that are driven by one of the cheapest quarter of the policies."""
NOISE = (0.0, 0.1, 0.2, 0.4)
"""Standard deviations of the noise, one an episode. White: what remembers its last action, as a gyroscope tells it,
could else imitate the noise better than the policy."""
GAIN = (0.4, 1.1)
"""What a policy's actions are multiplied by, drawn for each episode."""
FRAIL = {"SafetyHopperVelocity-v1": ((0.8, 1.1), 0.25), "SafetyWalker2dVelocity-v1": ((0.8, 1.1), 0.25),
         "SafetyHalfCheetahVelocity-v1": ((0.8, 1.1), 1.0), "SafetyHumanoidVelocity-v1": ((0.9, 1.1), 0.5)}
"""What falls (the Cheetah: stands still) by less than that: another range of gains, and a factor on the noise."""
DIGITS = 5


@dataclass(frozen=True)
class LinearPolicy:
    """action = clip(weights [(observation - mean) / deviation, 1]), bounds [-1, 1].

    It looks at the first N numbers of the observation, or at all. weights: (action size, N + 1). mean, deviation: (N,).
    penalty: what a step with cost took off the reward it was found with. reward, cost: mean return and cost of an
    episode without noise.
    """

    weights: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    penalty: float = 0.0
    reward: float = 0.0
    cost: float = 0.0

    def action(self, observation: np.ndarray, gain: float = 1.0) -> np.ndarray:
        """(action size,) in [-1, 1]."""
        normalized = (observation[:len(self.mean)] - self.mean) / self.deviation
        return np.clip(gain * (self.weights[:, :-1] @ normalized + self.weights[:, -1]), -1, 1)

    def to_json(self) -> dict[str, Any]:
        return {name: np.round(value, DIGITS).tolist() for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> LinearPolicy:
        arrays = {name: np.array(row[name]) for name in ("weights", "mean", "deviation")}
        return cls(**row | arrays)


def read_gaits(env_id: str, path: Path | None = None) -> list[LinearPolicy]:
    """The policies of an environment that came with the package, or those in a file."""
    content = (path or files(__package__).joinpath(FILE)).read_text()
    return [LinearPolicy.from_json(row) for row in json.loads(content)[env_id]]


def write_gaits(path: Path, env_id: str, gaits: list[LinearPolicy]) -> None:
    """Puts the policies of one environment into a file; those of others stay."""
    content = json.loads(path.read_text()) if path.exists() else {}
    content[env_id] = [gait.to_json() for gait in gaits]
    # A line a policy: readable differences, without a line for every number.
    blocks = [f"{json.dumps(name)}: [\n" + ",\n".join(map(json.dumps, rows)) + "]"
              for name, rows in sorted(content.items())]
    path.write_text("{" + ",\n".join(blocks) + "}\n")


class Gait:
    """Moves by one of the policies, with more or less of its strength.

    Style: `gait` (which of them), `gain` (its actions are multiplied by it), `noise`.
    """

    def __init__(self, env: SafetyGymnasiumEnv, rng: np.random.Generator) -> None:
        # From the cheapest on: drawn from all alike, hardly any would be safe.
        gaits = sorted(read_gaits(env.env_id), key=lambda gait: (gait.cost, -gait.reward))
        among = max(len(gaits) // 4, 1) if rng.random() < CHEAP else len(gaits)
        gains, steadiness = FRAIL.get(env.env_id, (GAIN, 1.0))
        self.style = {"gait": float(rng.integers(among)), "gain": float(rng.uniform(*gains)),
                      "noise": steadiness * float(rng.choice(NOISE))}
        self._policy = gaits[int(self.style["gait"])]
        self._noise = ActionNoise(env.specs.action.shape[0], self.style["noise"], rng, memory=0)

    def action(self, observation: Observation) -> np.ndarray:
        return self._noise.disturb(self._policy.action(observation["vector"], self.style["gain"]))
