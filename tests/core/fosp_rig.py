"""A small task for tests of world models and FOSP: a point in a plane, state observations.

The point starts near (-0.95, 0) and moves by 0.1 a (a in [-1, 1]^2, x and y); beyond x = 1 the
episode ends with reward 1. Around (0, 0) lies an obstacle of radius 0.3 that costs 1 per step
inside. One recorded actor of six goes around it, the others straight through.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

from safe_policy_core.interfaces import Spec, Specs
from safe_policy_core.methods.fosp import FospConfig, FospLearner
from safe_policy_core.world_model import WorldModelConfig

STATE_SPECS = Specs({"vector": Spec("observation/vector", (2,))}, Spec("action", (2,), "float32", -1.0, 1.0))
IMAGE_SPECS = Specs({"image": Spec("observation/image", (16, 16, 3), "uint8", 0.0, 255.0),
                     "pose": Spec("observation/pose", (6,))}, Spec("action", (6,), "float32", -1.0, 1.0))
RADIUS, STEP, LIMIT = 0.3, 0.1, 60


def tiny_config(**changes: Any) -> FospConfig:
    """A FOSP of a few thousand weights. Keywords of the world model are recognised too."""
    model_names = {field.name for field in dataclasses.fields(WorldModelConfig)} - {"units", "layers"}
    model = {"latents": 4, "classes": 4, "deter": 16, "units": 16, "depth": 4} | {
        name: changes.pop(name) for name in list(changes) if name in model_names}
    base = {"units": 16, "layers": 1, "horizon": 3, "imagination_starts": 16}
    return FospConfig(world_model=WorldModelConfig(**model), **(base | changes))


def random_batch(specs: Specs, seed: int = 0, batch: int = 3, length: int = 8) -> dict[str, np.ndarray]:
    """Noise with the right fields; row 1 holds an episode that terminates at 3, the next begins at 4."""
    rng = np.random.default_rng(seed)
    size = (batch, length)
    first, terminal, has_next = np.zeros(size, bool), np.zeros(size, bool), np.ones(size, bool)
    first[:, 0] = first[1, 4] = terminal[1, 3] = True
    has_next[1, 3] = False
    fields = {"action": rng.uniform(-1, 1, (*size, *specs.action.shape)),
              "next_action": rng.uniform(-1, 1, (*size, *specs.action.shape)),
              "reward": rng.random(size), "cost": (rng.random(size) < 0.3) * 1.0}
    for name, spec in specs.observation.items():
        fields[name] = (rng.integers(0, 256, (*size, *spec.shape), dtype=np.uint8) if spec.dtype == "uint8"
                        else rng.normal(size=(*size, *spec.shape)))
    arrays = {name: value if value.dtype == np.uint8 else value.astype(np.float32) for name, value in fields.items()}
    return arrays | {"is_first": first, "is_terminal": terminal, "has_next_action": has_next}


class PointWorld:
    """The task; `reset` and `step` work on plain arrays."""

    def reset(self, rng: np.random.Generator) -> np.ndarray:
        self.position = np.array([rng.uniform(-1, -0.9), rng.uniform(-0.15, 0.15)])
        self.steps = 0
        return self.position.astype(np.float32)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, float, bool, bool]:
        self.position = self.position + STEP * np.clip(action, -1, 1)
        self.steps += 1
        done = bool(self.position[0] > 1)
        cost = float(np.linalg.norm(self.position) < RADIUS)
        return self.position.astype(np.float32), float(done), cost, done, self.steps >= LIMIT


def learner(specs: Specs = STATE_SPECS, seed: int = 0, **changes: object) -> FospLearner:
    return FospLearner(specs, tiny_config(**changes), seed)


def weights(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten().clone() for parameter in module.parameters()])


def train(one: FospLearner, steps: int, first: int = 0) -> dict[str, float]:
    metrics = {}
    for step in range(first, first + steps):
        metrics = one.update(random_batch(one.specs, seed=step))
    return metrics


def demonstration(rng: np.random.Generator, through: bool) -> dict[str, np.ndarray]:
    """Rows of one episode in the arrival convention: around the obstacle by y = 0.7, or straight through."""
    world = PointWorld()
    observations, rows = [world.reset(rng)], []
    done = over = False
    while not (done or over):
        aside = (0.0 if through else 0.7) - world.position[1]
        action = np.clip(np.array([1.0, aside / STEP]) + rng.normal(0, 0.15, 2), -1, 1).astype(np.float32)
        observation, reward, cost, done, over = world.step(action)
        observations.append(observation)
        rows.append((action, reward, cost))
    count = len(observations)
    actions = np.array([row[0] for row in rows], np.float32)
    zero = np.zeros((1, 2), np.float32)
    position = np.arange(count)
    return {"vector": np.array(observations, np.float32), "action": np.concatenate([zero, actions]),
            "next_action": np.concatenate([actions, zero]),
            "reward": np.array([0.0, *(row[1] for row in rows)], np.float32),
            "cost": np.array([0.0, *(row[2] for row in rows)], np.float32),
            "is_first": position == 0, "is_terminal": (position == count - 1) & done,
            "has_next_action": position < count - 1}


def dataset(episodes: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Rows of `episodes` demonstrations, five of six through the obstacle."""
    rng = np.random.default_rng(seed)
    runs = [demonstration(rng, through=index % 6 > 0) for index in range(episodes)]
    return {name: np.concatenate([run[name] for run in runs]) for name in runs[0]}


def windows(rows: dict[str, np.ndarray], batch: int, length: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """(batch, length) windows of flat rows, as `EpisodeStore.sample` gives them."""
    total = len(rows["reward"])
    index = (rng.integers(0, total, batch)[:, None] + np.arange(length)) % total
    return {name: values[index] for name, values in rows.items()}
