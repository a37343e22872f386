"""SAS Algorithm 1: imagined courses ranked by the energy of what they visit, and the prompt that comes of it.

What differs from the paper: the energy of a step needs the density of its state, so the given first state has none;
where it peaks earlier than L steps, the prompt is the course's first L steps (lines 7 and 15 take what comes before the
peak); V_t asks the energy to fall unless configured otherwise (`SasConfig.lyapunov`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from safe_policy_core.methods.sas.config import SasConfig
from safe_policy_core.methods.sas.imagination import Imagined, Noise, imagine
from safe_policy_core.methods.sas.model import SasModel
from safe_policy_core.methods.sas.steps import Steps

EVIDENCE_ROWS = 50_000
"""Draws of states that are decoded at once: those of many courses do not fit into memory."""


@dataclass(frozen=True)
class Alignment:
    """What an alignment came to; of several prompts, what the last did.

    prompt: one course. course: the number of the chosen one in its loop. step: where in it the prompt ends.
    peak: its highest energy [nats]. stable: share of its steps that meet condition V.
    imagined_cost: sum of the costs that it expects over the imagined steps.
    """

    prompt: Steps
    course: int
    step: int
    peak: float
    stable: float
    imagined_cost: float

    def to_json(self) -> dict[str, Any]:
        """The numbers, for a log."""
        return {"prompt_steps": self.prompt.actions.shape[1], "course": self.course, "step": self.step,
                "peak_energy": self.peak, "stable_share": self.stable, "imagined_cost": self.imagined_cost}


def occupancy_energy(log_density: Tensor, steps: int, discount: float) -> Tensor:
    """E_t = -log sum_k discount^k rho_{t+k} over the next `steps`, (N, T) -> (N, T - steps + 1)."""
    discounts = torch.arange(steps, device=log_density.device) * torch.tensor(discount).log()
    return -(log_density.unfold(1, steps, 1) + discounts).logsumexp(-1)


def condition_v(energy: Tensor, lyapunov: str) -> Tensor:
    """V_t (eq. 8) of (N, T) energies, (N, T - 1) bool. With G = E_j - E_t it holds where E_{t+1} >= E_t ("rising")."""
    change = energy.diff(dim=1)
    return change >= 0 if lyapunov == "rising" else change <= 0


def prompt_begin(peak: int, length: int, steps: int) -> int:
    """First step of tau[t - L : t] (lines 7 and 15), moved so that all L steps are in the course's `steps`."""
    return min(max(peak - length, 0), steps - length)


def state_density(model: SasModel, found: Imagined, normal: Tensor) -> Tensor:
    """log rho_VAE of the imagined states from the second on, (N, T - 1): their evidence bound.

    normal: (draws, N, T - 1, latent).
    """
    states, actions = found.steps.states, found.steps.actions
    rows = (found.features[:, :-1], states[:, :-1], actions[:, :-1], states[:, 1:])
    size = max(1, EVIDENCE_ROWS // (normal.shape[0] * normal.shape[2]))
    parts = zip(*(value.split(size) for value in rows), normal.split(size, 1), strict=True)
    return torch.cat([model.heads.evidence(*part)[0] for part in parts])


def action_density(model: SasModel, found: Imagined) -> Tensor:
    """log pi(a_t | s_t) of the imagined actions from the second on, (N, T - 1)."""
    return model.actions(found.features[:, 1:]).log_probability(found.raw_actions[:, 1:])


def step_energy(model: SasModel, found: Imagined, normal: Tensor, config: SasConfig) -> Tensor:
    """Energies of the imagined steps from the second on, (N, T - energy_steps).

    rho(s_t, a_t) = rho_VAE(s_t) pi(a_t | s_t) (section 4). normal: as for `state_density`.
    """
    return occupancy_energy(state_density(model, found, normal) + action_density(model, found), config.energy_steps,
                            config.discount)


@torch.inference_mode()
def align(model: SasModel, config: SasConfig, state: Tensor, to_go: Tensor, generator: torch.Generator) -> Alignment:
    """Algorithm 1 from a scaled first state (inputs,) and (2,) to-go sums; several prompts are joined."""
    found = [_one_prompt(model, config, state, to_go, generator) for _ in range(config.prompts)]
    return replace(found[-1], prompt=Steps.concatenate([alignment.prompt for alignment in found]))


def _one_prompt(model: SasModel, config: SasConfig, state: Tensor, to_go: Tensor, generator: torch.Generator
                ) -> Alignment:
    asked = to_go.repeat(config.trajectories, 1)
    largest = model.base.largest_return * model.base.return_unit
    asked[:, 0] -= config.return_spread * largest * torch.linspace(0, 1, len(asked), device=asked.device)
    first = imagined_courses(model, config, state, asked, generator, config.trajectories, None)  # lines 1 to 5
    chosen = _alignment(first, *first_choice(first, config, generator), config)
    if config.selection in ("maxmax", "no_v", "random"):
        return chosen
    second = imagined_courses(model, config, state, to_go, generator, config.candidates, chosen.prompt)  # 8 to 13
    return _alignment(second, *second_choice(second, config), config)


@dataclass(frozen=True)
class Courses:
    """steps; energy (N, T - energy_steps) from the second step on; cost (N,) imagined, in the data's unit."""

    steps: Steps
    energy: Tensor
    cost: Tensor


def first_choice(courses: Courses, config: SasConfig, generator: torch.Generator) -> tuple[int, int]:
    """Which course (line 6: that of the lowest peak), and at which of its energies the prompt ends (line 4)."""
    if config.selection == "random":
        index, place = (int(torch.randint(size, (), generator=generator)) for size in courses.energy.shape)
        return index, place
    peaks = courses.energy.amax(1)
    if config.selection == "cost":
        index = int(courses.cost.argmin())
    else:
        index = int(peaks.argmax() if config.selection == "maxmax" else peaks.argmin())
    return index, int(courses.energy[index].argmax())


def second_choice(courses: Courses, config: SasConfig) -> tuple[int, int]:
    """Which course meets condition V most often (line 14), and its peak (line 11)."""
    score = -courses.cost if config.selection == "cost" else condition_v(courses.energy, config.lyapunov).sum(1)
    index = int(score.argmax())
    return index, int(courses.energy[index].argmax())


def imagined_courses(model: SasModel, config: SasConfig, state: Tensor, to_go: Tensor, generator: torch.Generator,
                     courses: int, prompt: Steps | None) -> Courses:
    """Imagines from a first state, after a prompt, and rates what it imagined. to_go: (2,), or (courses, 2)."""
    count = imagined_steps(model, config)
    noise = Noise.draw(model, courses, count, generator)
    found = imagine(model, state, to_go, noise, prompt, config.told, config.keep_prompt)
    normal = torch.randn((config.evidence_draws, courses, count - 1, config.latent), generator=generator)
    cost = found.received[..., 1].clamp(min=0).sum(1) / model.units[1]
    return Courses(found.steps, step_energy(model, found, normal.to(state.device), config), cost)


def imagined_steps(model: SasModel, config: SasConfig) -> int:
    """T: no longer than an episode of the data, and at least a prompt with an energy behind it."""
    return max(min(config.imagined_steps, int(model.base.horizon)), config.prompt_steps + config.energy_steps + 1)


def _alignment(courses: Courses, index: int, last: int, config: SasConfig) -> Alignment:
    """The prompt before the step of energy number `last` of a course."""
    # The first energy is that of the second step.
    begin = prompt_begin(last + 1, config.prompt_steps, courses.steps.actions.shape[1])
    end, energy = begin + config.prompt_steps, courses.energy[index]
    stable = condition_v(energy.unsqueeze(0), config.lyapunov).float().mean()
    return Alignment(courses.steps.part(index, begin, end), index, end, float(energy.max()), float(stable),
                     float(courses.cost[index]))
