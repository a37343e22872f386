"""Small bases on the corridor for SAS to align."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from safe_policy_core.methods.qpt.config import QptConfig
from safe_policy_core.methods.registry import make_learner
from safe_policy_core.methods.sas.config import SasConfig
from safe_policy_core.methods.sequence.config import CdtConfig, DtConfig
from safe_policy_core.training.offline import train_offline
from tests.core.corridor import SPECS, STEPS, corridor_dataset

SMALL: dict[str, Any] = {"units": 16, "heads": 2, "layers": 2, "length": 8, "episode_length": 2 * STEPS}
BASES = {"dt": DtConfig(**SMALL), "cdt": CdtConfig(**SMALL), "qpt": QptConfig(**SMALL, critic_units=16, candidates=3)}
TOLD = {"dt_told": ("dt", DtConfig(**SMALL, prompt_steps=3))}
"""That saw prompts in training."""
START = {"vector": np.array([0.1, 0.0], np.float32)}


def trained_bases(folder: Path) -> Path:
    """Checkpoints of every base after a few steps."""
    for name, (method, config) in ({name: (name, config) for name, config in BASES.items()} | TOLD).items():
        train_offline(make_learner(method, SPECS, config), corridor_dataset(12), 3, 8, 1, 0, folder / name,
                      progress=False)
    return folder


def learner_of(base: Path, steps: int = 2, **changes: Any) -> Any:
    learner = make_learner("sas", SPECS, SasConfig(base=str(base), units=16, prompt_steps=3, **changes))
    train_offline(learner, corridor_dataset(12), steps, 8, 1, progress=False)
    return learner
