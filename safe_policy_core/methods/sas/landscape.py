"""Energy at many states at once, for a map of what the model holds for likely (SAS Figure 3)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from safe_policy_core.methods.sas.alignment import imagined_courses
from safe_policy_core.methods.sas.policy import SasPolicy

DRAWS = 8
"""Imagined beginnings of which a state's energy is the mean."""


@dataclass(frozen=True)
class Landscape:
    """energy: (states,) [nats], -log of the occupancy of the first steps from each. peak: E_j, the lowest peak of the
    courses imagined from the episode's start (line 6). G of eq. 6 is `peak - energy`."""

    energy: np.ndarray
    peak: float

    @property
    def lyapunov(self) -> np.ndarray:
        """G_SAS at each state; where it is at least 0 the energy is within the region of attraction."""
        return self.peak - self.energy


def landscape(policy: SasPolicy, start: np.ndarray, observations: np.ndarray, seed: int = 0) -> Landscape:
    """start: (size,) the episode's first observation. observations: (states, size)."""
    model, config, generator = policy.model, policy.config, torch.Generator().manual_seed(seed)
    device = model.base.horizon.device
    with torch.inference_mode():
        first, states = (model.base.states(torch.as_tensor(rows, dtype=torch.float32, device=device))
                         for rows in (start, observations))
        to_go = policy.targets() * model.units
        courses = imagined_courses(model, config, first, to_go, generator, config.trajectories, None)
        # As short as can be: one energy for each state.
        short = replace(config, imagined_steps=0, prompt_steps=0)
        found = imagined_courses(model, short, states.repeat(DRAWS, 1), to_go, generator, DRAWS * len(states), None)
    energy = found.energy[:, 0].view(DRAWS, -1).mean(0)
    return Landscape(energy.cpu().numpy(), float(courses.energy.amax(1).amin()))
