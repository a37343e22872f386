"""CDT-V on data whose costs are hidden: which steps cost is learned from demonstrations."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from safe_policy_core.data.dsrl import DsrlDataset
from safe_policy_core.methods.offline.config import RgmConfig
from safe_policy_core.methods.offline.demonstrations import KNOWN_SAFE
from safe_policy_core.methods.registry import load_policy, make_learner
from safe_policy_core.methods.sequence.config import CdtVConfig
from safe_policy_core.training.offline import train_offline
from tests.core.track_env import SPECS, SPEED_LIMIT, mixed_data

RGM = RgmConfig(units=32, learning_rate=3e-3, actor_learning_rate=3e-3, correction_learning_rate=3e-3, discount=0.9)
CONFIG = CdtVConfig(length=4, layers=1, heads=2, units=16, warm_up=5, learning_rate=1e-3, rgm=RGM, rgm_steps=150,
                    rgm_batch=128)
DEMONSTRATIONS = 12


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data() -> DsrlDataset:
    """Careful drivers are every third; the first of them are known."""
    shown = mixed_data()
    known = np.arange(0, 3 * DEMONSTRATIONS, 3).tolist()
    return dataclasses.replace(shown, costs=np.zeros_like(shown.costs), metadata={KNOWN_SAFE: known})


def test_costs_are_found_where_they_were(data: DsrlDataset) -> None:
    learner: Any = make_learner("cdt_v", SPECS, CONFIG)
    source = learner.data_source(data)
    found, truth = source.dataset.costs, mixed_data().costs > 0
    assert (found >= 0).all()
    assert found[truth].mean() > 3 * found[~truth].mean()
    near = data.observations[:, 0] > 0
    assert (truth == (near & (data.actions[:, 0] > SPEED_LIMIT))).all()
    known = np.array(data.metadata[KNOWN_SAFE])
    demonstrated = source.dataset.cost_returns[known].mean()
    assert float(learner.model.demonstrated_cost) == pytest.approx(demonstrated, rel=1e-5)
    assert demonstrated < 0.5 * source.dataset.cost_returns.mean()


def test_it_acts_at_the_demonstrations_cost_and_continues_exactly(data: DsrlDataset, tmp_path: Path) -> None:
    whole: Any = make_learner("cdt_v", SPECS, dataclasses.replace(CONFIG, rgm_steps=3))
    train_offline(whole, data, 4, 8, 1, progress=False)
    for steps in (2, 4):
        parted: Any = make_learner("cdt_v", SPECS, dataclasses.replace(CONFIG, rgm_steps=3))
        train_offline(parted, data, steps, 8, 1, checkpoint_dir=tmp_path / "run", resume=True, progress=False)
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, parted.model.state_dict()[name]), name
    for policy in (parted.policy(), load_policy(tmp_path / "run")):
        policy.reset(0)
        assert policy.target_cost == pytest.approx(float(whole.model.demonstrated_cost))
