"""Training with matrix products in bfloat16: every method takes its steps, and its weights stay in float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from safe_policy_core.checkpoint import read_manifest
from safe_policy_core.errors import CheckpointError
from safe_policy_core.interfaces import Specs
from safe_policy_core.methods.registry import METHODS, learner_class, make_learner
from safe_policy_core.training.offline import train_offline
from safe_policy_core.training.steps import take_step
from tests.core.corridor import SPECS, corridor_dataset
from tests.core.fosp_rig import IMAGE_SPECS, STATE_SPECS, random_batch

WORLD_MODELS = ("fosp", "dreamer", "safe_dreamer", "recovery_rl")
IN_STAGES = tuple(name for name in METHODS if hasattr(learner_class(name), "pretrain"))
NEED_MORE = ("sas", "cdt_v", "dwbc", "rgm")
"""A trained base, or more safe demonstrations than the corridor has."""


class Noise:
    """A source of one batch."""

    def __init__(self, specs: Specs) -> None:
        self._batch = random_batch(specs)

    def sample(self, batch: int, length: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return self._batch


@pytest.mark.parametrize("specs", [STATE_SPECS, IMAGE_SPECS])
@pytest.mark.parametrize("method", WORLD_MODELS)
def test_world_models(method: str, specs: Specs) -> None:
    found = {}
    for precision in ("float32", "bfloat16"):
        learner = make_learner(method, specs)
        found[precision] = take_step(learner, Noise(specs), 3, 8, 0, 0, 1, precision)
        assert {parameter.dtype for parameter in learner.model.parameters()} == {torch.float32}
        assert learner.policy().act({name: np.zeros(spec.shape, spec.dtype) for name, spec in
                                     specs.observation.items()}).action.dtype == np.float32
    exact, rough = found["float32"], found["bfloat16"]
    assert exact != rough
    for name in exact:
        if name.startswith("model/"):
            assert rough[name] == pytest.approx(exact[name], rel=0.15, abs=0.05), name


@pytest.mark.parametrize("method", [name for name in METHODS if name not in (*WORLD_MODELS, *IN_STAGES, *NEED_MORE)])
def test_methods_on_datasets(method: str) -> None:
    learner = make_learner(method, SPECS)
    metrics = train_offline(learner, corridor_dataset(12), 2, 64, 1, progress=False, precision="bfloat16")
    assert all(np.isfinite(value) for value in metrics.values())
    assert {parameter.dtype for parameter in learner.model.parameters()} == {torch.float32}


def test_a_run_goes_on_only_in_its_own_precision(tmp_path: Path) -> None:
    def run(steps: int, precision: str) -> None:
        train_offline(make_learner("bc", SPECS), corridor_dataset(12), steps, 8, 1, 0, tmp_path / "run", resume=True,
                      progress=False, precision=precision)

    run(2, "bfloat16")
    assert read_manifest(tmp_path / "run")["extra"]["offline"]["precision"] == "bfloat16"
    with pytest.raises(CheckpointError, match="precision"):
        run(3, "float32")
    run(3, "bfloat16")
