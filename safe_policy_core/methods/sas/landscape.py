"""Density and energy at many states at once, for a map of what the model holds for likely (SAS Figure 3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from safe_policy_core.methods.sas.alignment import action_density, imagined_steps, occupancy_energy, state_density
from safe_policy_core.methods.sas.imagination import Noise, imagine
from safe_policy_core.methods.sas.policy import SasPolicy

DRAWS = 8
"""Imagined beginnings of which a state's energy and density are means."""


@dataclass(frozen=True)
class Landscape:
    """density, energy: (states,) [nats]. peak: E_j [nats].

    density: log of the occupancy of states in the first steps from each, without the likelihood of the actions.
    energy: -log of the occupancy of states and actions in them. peak: the lowest peak of the courses imagined from the
    episode's start (line 6), of energies that are found at their states as `energy` is: those along a course, which
    alignment ranks, are of a longer context, and one draw, and were mostly above or below all of a map.
    """

    density: np.ndarray
    energy: np.ndarray
    peak: float

    @property
    def lyapunov(self) -> np.ndarray:
        """G_SAS (eq. 6) at each state; where it is at least 0 the state is in the region of attraction."""
        return self.peak - self.energy


@torch.inference_mode()
def landscape(policy: SasPolicy, start: np.ndarray, observations: np.ndarray, seed: int = 0) -> Landscape:
    """start: (size,) the episode's first observation. observations: (states, size)."""
    model, config, generator = policy.model, policy.config, torch.Generator().manual_seed(seed)
    first, states = (model.base.states(torch.as_tensor(rows, dtype=torch.float32, device=model.base.horizon.device))
                     for rows in (start, observations))
    to_go = policy.targets() * model.units
    noise = Noise.draw(model, config.trajectories, imagined_steps(model, config), generator)
    courses = imagine(model, first, to_go, noise).steps.states
    level = _beginnings(policy, courses.flatten(0, 1), to_go, generator)[1].view(courses.shape[:2])
    density, energy = (value.cpu().numpy() for value in _beginnings(policy, states, to_go, generator))
    return Landscape(density, energy, float(level.amax(1).amin()))


def _beginnings(policy: SasPolicy, states: Tensor, to_go: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Density and energy of what follows (states, inputs), each (states,): means over `DRAWS`."""
    model, config = policy.model, policy.config
    count = config.energy_steps + 1  # as few as have one energy
    noise = Noise.draw(model, DRAWS * len(states), count, generator)
    found = imagine(model, states.repeat(DRAWS, 1), to_go, noise)
    normal = torch.randn((config.evidence_draws, DRAWS * len(states), count - 1, config.latent), generator=generator)
    normal = normal.to(states.device)
    visited = state_density(model, found, normal)
    density, negative = (-occupancy_energy(value, config.energy_steps, config.discount)[:, 0].view(DRAWS, -1).mean(0)
                         for value in (visited, visited + action_density(model, found)))
    return density, -negative
