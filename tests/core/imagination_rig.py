"""Small learners that inherit from Dreamer's, for tests, on the tasks of `fosp_rig`."""

from __future__ import annotations

import dataclasses
from typing import Any

from safe_policy_core.interfaces import Specs
from safe_policy_core.methods.dreamer.learner import DreamerLearner, Experience
from safe_policy_core.methods.registry import learner_class
from safe_policy_core.world_model import WorldModelConfig, real_steps, to_batch
from tests.core.fosp_rig import STATE_SPECS, random_batch

METHODS = ("dreamer", "safe_dreamer", "recovery_rl")


def imagination_learner(method: str, specs: Specs = STATE_SPECS, seed: int = 0, **changes: Any) -> Any:
    """A learner of a few thousand weights. Keywords of the world model are recognised too."""
    model_names = {field.name for field in dataclasses.fields(WorldModelConfig)} - {"units", "layers"}
    model = {"latents": 4, "classes": 4, "deter": 16, "units": 16, "depth": 4} | {
        name: changes.pop(name) for name in list(changes) if name in model_names}
    base = {"units": 16, "layers": 1, "horizon": 3, "imagination_starts": 16, "ensemble": 2}
    found = learner_class(method)
    return found(specs, found.config_class(world_model=WorldModelConfig(**model), **(base | changes)), seed)


def experience(one: DreamerLearner) -> Experience:
    """What one random batch gives a learner of `STATE_SPECS`."""
    batch = to_batch(random_batch(one.specs), one.specs, "cpu")
    _, states, _ = one.model.world_model.loss(batch, one.generator)
    states = states.detach()
    return Experience(real_steps(states.features, batch)[0], None,
                      *one._imagine(states, batch["is_terminal"], None))


