"""Speed of FOSP for `make bench`: training steps and policy steps at the sizes that the project states."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np
import torch

from safe_policy_core.interfaces import Spec, Specs
from safe_policy_core.methods.fosp.config import FospConfig
from safe_policy_core.methods.fosp.learner import FospLearner
from safe_policy_core.vision import Projection, ToolViewConfig
from safe_policy_core.world_model import WorldModelConfig

IMAGE, POSE = Spec("observation/image", (64, 64, 3), "uint8", 0, 255), Spec("observation/pose", (6,))
SPECS = Specs({"image": IMAGE, "pose": POSE}, Spec("action", (6,), "float32", -1.0, 1.0),
              {"max_translation_step": 0.015})
CAMERA = Projection.from_camera(np.array([[1.0, 0, 0.5], [0, 1.0, 0.5], [0, 0, 1]]), np.diag([1.0, -1.0, -1.0]),
                                np.array([-0.5, 0.0, 0.5]))
"""Half a metre above the operating area, looking down."""
THREADS, UPDATES, STEPS, EPISODE = 2, 5, 400, 20


def batch(size: int, length: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Noise with the fields of `EpisodeStore.sample`."""
    shape = (size, length)
    images = rng.integers(0, 256, (*shape, 64, 64, 3), dtype=np.uint8)
    first = np.zeros(shape, bool)
    first[:, 0] = True
    pose = (rng.normal(size=(*shape, 6)) * 0.02 + [0.5, 0, 0, 0, 0, 0]).astype(np.float32)
    actions = rng.uniform(-1, 1, (2, *shape, 6)).astype(np.float32)
    return {"image": images, "scene": images, "pose": pose, "action": actions[0], "next_action": actions[1],
            "reward": rng.random(shape, np.float32), "cost": (rng.random(shape) < 0.1).astype(np.float32),
            "is_first": first, "is_terminal": np.zeros(shape, bool), "has_next_action": np.ones(shape, bool),
            "undisturbed": np.ones(shape, bool)}


def training_step(config: FospConfig, size: int, length: int, half: bool = False) -> float:
    """Median seconds of an update. half: matrix products in bfloat16."""
    learner, data, taken = FospLearner(SPECS, config), batch(size, length, np.random.default_rng(0)), []
    for _ in range(UPDATES):
        began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            learner.update(data)
        taken.append(time.perf_counter() - began)
    return float(np.median(taken[1:]))


def policy_steps(config: FospConfig) -> np.ndarray:
    """(STEPS,) seconds from observation to action, in episodes of `EPISODE` steps with new scenes."""
    policy, rng = FospLearner(SPECS, config).policy(), np.random.default_rng(0)
    images = rng.integers(0, 256, (STEPS, 64, 64, 3), dtype=np.uint8)
    taken = np.empty(STEPS)
    for step, image in enumerate(images):
        if step % EPISODE == 0:
            policy.reset(step)
        observation = {"image": image, "pose": np.array([0.5, 0, 0, 0, 0, 0], np.float32)}
        began = time.perf_counter()
        policy.act(observation, deterministic=True)
        taken[step] = time.perf_counter() - began
    return taken[EPISODE:]


def rows() -> list[dict[str, Any]]:
    """One row a figure: name, value, unit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        large = FospConfig(world_model=WorldModelConfig(latents=32, classes=32, deter=512), horizon=15,
                           imagination_starts=0)
        tabletop = dataclasses.replace(FospConfig.tabletop(), tool_view=ToolViewConfig(projection=CAMERA.row))
        sizes = "16 x 32, 32 x 32 latents, horizon 15"
        found = [(f"FOSP training step, {sizes}", training_step(large, 16, 32), "s"),
                 (f"FOSP training step, {sizes}, bfloat16", training_step(large, 16, 32, half=True), "s"),
                 ("FOSP training step, small, 16 x 16", training_step(FospConfig(), 16, 16), "s"),
                 ("FOSP training step, tabletop, 16 x 16", training_step(tabletop, 16, 16), "s")]
        torch.set_num_threads(1)  # as policy_node: a second thread only waits
        for name, config in (("small", FospConfig()), ("tabletop", tabletop)):
            taken = 1e3 * policy_steps(config)
            found += [(f"FOSP policy step, {name}, median", float(np.median(taken)), "ms"),
                      (f"FOSP policy step, {name}, 99th percentile", float(np.quantile(taken, 0.99)), "ms")]
    finally:
        torch.set_num_threads(threads)
    return [{"name": name, "value": value, "unit": unit} for name, value, unit in found]
