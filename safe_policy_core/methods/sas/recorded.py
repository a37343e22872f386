"""Prompts that are recorded, in the place of imagined ones: steps of good episodes near to where the robot is.

Not in the paper, whose prompts are what the model imagines of its own behaviour (Algorithm 1). What an imagined course
costs is a guess, of a recorded one it is known; and a prompt from near the present state can be chosen anew while the
episode goes on, which holds the policy to what those episodes did. The dataset's costs are needed for it, the base
still need not know them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from safe_policy_core.data.dsrl import DsrlDataset
from safe_policy_core.data.sequences import to_go
from safe_policy_core.errors import DatasetError
from safe_policy_core.methods.sas.config import SasConfig
from safe_policy_core.methods.sas.steps import Steps
from safe_policy_core.methods.sequence.model import SequenceModel


@dataclass(frozen=True)
class Recalled:
    """What was shown to the policy. step: its first row among those kept. distance: of its middle state from the
    present one, root of the mean square over the standardised elements."""

    prompt: Steps
    step: int
    distance: float

    def to_json(self) -> dict[str, Any]:
        """The numbers, for a log."""
        return {"prompt_steps": self.prompt.actions.shape[1], "recorded_step": self.step, "distance": self.distance}


class RecordedSteps(nn.Module):
    """Rows of episodes as the networks take them: part of a checkpoint, so that who acts needs no dataset.

    states (R, inputs), actions (R, action_dim), to_go (R, 2); begins (R,) bool: where L steps of one episode begin;
    first (R,) int64: the first row of the same episode.
    """

    states: Tensor
    actions: Tensor
    to_go: Tensor
    begins: Tensor
    first: Tensor

    def __init__(self, rows: int, inputs: int, action_dim: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        for name, size in (("states", inputs), ("actions", action_dim), ("to_go", 2)):
            self.register_buffer(name, torch.zeros(rows, size))
        self.register_buffer("begins", torch.zeros(rows, dtype=torch.bool))
        self.register_buffer("first", torch.zeros(rows, dtype=torch.int64))
        self._middles: tuple[Tensor, Tensor, Tensor] | None = None  # of `nearest`, made when first asked for
        self.register_load_state_dict_post_hook(_forget)

    @torch.no_grad()
    def record(self, dataset: DsrlDataset, base: SequenceModel, config: SasConfig) -> int:
        """Takes whole episodes of `good_episodes` by chance, as many as there is room for. Returns how many.

        Raises `DatasetError` when none has the length of a prompt, or none has room.
        """
        good = good_episodes(dataset, base.config.target_cost, config)
        fits = (dataset.lengths[good] >= self.steps) & (dataset.lengths[good] <= len(self.begins))
        order = np.random.default_rng(0).permutation(good[fits])
        taken = order[np.cumsum(dataset.lengths[order]) <= len(self.begins)]
        if not len(taken):
            raise DatasetError(f"recorded: no episode of at most {config.recorded_cost:g} of the cost limit has "
                               f"between {self.steps} and {len(self.begins)} steps (recorded_cost, recorded)")
        starts, lengths = dataset.starts[taken], dataset.lengths[taken]
        rows = np.concatenate([np.arange(start, start + length)
                               for start, length in zip(starts, lengths, strict=True)])
        sums = np.stack([to_go(values, dataset)[rows] for values in (dataset.rewards, dataset.costs)], -1)
        device, self._middles = self.states.device, None
        units = torch.stack([base.return_unit, base.cost_unit])
        for buffer in (self.states, self.actions, self.to_go, self.begins):
            buffer.zero_()
        self.states[:len(rows)] = base.states(torch.as_tensor(dataset.observations[rows], device=device))
        self.actions[:len(rows)] = torch.as_tensor(dataset.actions[rows], device=device)
        self.to_go[:len(rows)] = torch.as_tensor(sums, device=device) * units
        for end, length in zip(np.cumsum(lengths).tolist(), lengths.tolist(), strict=True):
            self.begins[end - length:end - self.steps + 1] = True
            self.first[end - length:end] = end - length
        return len(taken)

    def nearest(self, state: Tensor) -> Recalled:
        """The L steps whose middle state is nearest to a scaled state (inputs,)."""
        if self._middles is None:
            rows = self.begins.nonzero()[:, 0]
            middles = self.states[rows + self.steps // 2]
            self._middles = rows, -2 * middles, middles.square().sum(-1)
        rows, directions, norms = self._middles
        return self._recalled(int(rows[torch.addmv(norms, directions, state).argmin()]), state)

    def begun_nearest(self, state: Tensor, generator: torch.Generator) -> Recalled:
        """Any L steps of the episode whose first state is nearest to a scaled state (inputs,)."""
        firsts = self.first[self.begins].unique()
        episode = firsts[(self.states[firsts] - state).square().mean(-1).argmin()]
        return self._any(self.begins & (self.first == episode), state, generator)

    def drawn(self, state: Tensor, generator: torch.Generator) -> Recalled:
        """Any L steps."""
        return self._any(self.begins, state, generator)

    def _any(self, where: Tensor, state: Tensor, generator: torch.Generator) -> Recalled:
        places = where.nonzero()[:, 0]
        return self._recalled(int(places[int(torch.randint(len(places), (), generator=generator))]), state)

    def _recalled(self, begin: int, state: Tensor) -> Recalled:
        part = slice(begin, begin + self.steps)
        distance = (self.states[begin + self.steps // 2] - state).square().mean().sqrt()
        return Recalled(Steps(self.states[None, part], self.actions[None, part], self.to_go[None, part]), begin,
                        float(distance))


def _forget(recorded: Any, _: Any) -> None:
    recorded._middles = None  # they are of what was there before


def good_episodes(dataset: DsrlDataset, target_cost: float, config: SasConfig) -> np.ndarray:
    """Numbers of the episodes that cost little and, among those, return much (`SasConfig.recorded_quantile`)."""
    cheap = np.flatnonzero(dataset.cost_returns <= config.recorded_cost * target_cost)
    if not len(cheap):
        return cheap
    returns = dataset.returns[cheap]
    return cheap[returns >= np.quantile(returns, config.recorded_quantile)]
