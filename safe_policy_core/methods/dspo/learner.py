"""DSPO: safe policies from a few safe demonstrations and unlabelled data, without any cost (papers/dspo.txt).

Three stages (`pipeline`): a discriminator that tells safe trajectories and is blind for returns (eq. 1, 4, 5), a
diffusion of trajectories given return and safety signal (eq. 6), and this learner, which clones what the
diffusion generates and the demonstrations.

Deviations from the paper: q(r | z) is trained on paired data (after eq. 5, `return_agnostic`), its expectations are
over balanced batches (`discriminator_stage`), attention is scaled by 1/sqrt(d) (3.1, `discriminator`), long
trajectories are seen in pieces, and a number beside every generated step says whether the episode still lasts
(`diffusion_stage`). An average of the U-Net's weights (EMA) generates, of which the paper does not speak, and follows
them faster at first, so that a short run does not average over its random start. D^G is asked for the median of the
demonstrations' signals, where appendix D.1 takes the smallest (`DiffusionConfig.signal_quantile`, 0.5). Discriminators
are shown changes of state (`inputs`) and, of D^U, rivals of the demonstrations (`opposite`), a trajectory is judged by
one that was not trained on it (`folds`), the logits of each are standardised by those of the unlabelled that it judges,
so that all are on one scale (`Judgements.scale`), and the diffusion is conditioned on the rank of the signal. In the
preset "small" the discriminator is an MLP and the U-Net predicts clean values (`config`); "full" has the paper's in
both. The preset "recalled" has no diffusion: it clones the recorded trajectories that the discriminator recalls, and is
told their returns (`CloningConfig`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from safe_policy_core.errors import DatasetError
from safe_policy_core.interfaces import Specs
from safe_policy_core.methods.dspo.config import DspoConfig
from safe_policy_core.methods.dspo.policy import DspoPolicy
from safe_policy_core.methods.dspo.stage import Stage
from safe_policy_core.methods.dspo.trajectories import Trajectories
from safe_policy_core.networks.actor import PlainActor
from safe_policy_core.networks.distributions import BoundedGaussian
from safe_policy_core.networks.mlp import relu_mlp
from safe_policy_core.networks.optimiser import Optimiser, rate_at

_CLIP = 10.0
_RETURN_UNIT = 0.05
"""What a clone is told is how far the return is from the one to ask for, in twentieths of the range in the data.
Standardised, it would name the trajectory where those that are cloned earned nearly the same."""


class ToldActor(PlainActor):
    """A `PlainActor` that is also told how far from the return asked for the trajectory's is; 0 when it acts."""

    asked: Tensor

    def __init__(self, inputs: int, action_dim: int, units: int, layers: int) -> None:
        super().__init__(inputs, action_dim, units, layers)
        self.network = relu_mlp(inputs + 1, 2 * action_dim, units, layers)
        self.register_buffer("asked", torch.zeros(()))

    def forward(self, state: Tensor, returns: Tensor | None = None) -> BoundedGaussian:
        """returns: (...) of the trajectories, as fractions of the range in the data."""
        told = state.new_zeros(state.shape[:-1]) if returns is None else (returns - self.asked) / _RETURN_UNIT
        return BoundedGaussian(self.network(torch.cat([self.standardiser(state), told[..., None]], -1)))


class DspoLearner(Stage):
    """Stage 3: L_BC = E_{D^S and D^G}[|pi(s) - a|^2], on batches of `CloningSource`."""

    method = "dspo"
    part = "cloning"

    def __init__(self, specs: Specs, config: DspoConfig | None = None, seed: int = 0,
                 device: torch.device | str = "cpu") -> None:
        super().__init__(specs, config, seed, device)
        self.optimisers = {"actor": Optimiser(self.networks["actor"], self.config.cloning.learning_rate, _CLIP)}

    def make_networks(self) -> dict[str, nn.Module]:
        settings = self.config.cloning
        kind = ToldActor if settings.told_return else PlainActor
        return {"actor": kind(self.features.size, self.action_dim, settings.units, settings.layers)}

    def fit(self, trajectories: Trajectories) -> None:
        """Takes the return to ask for, the median of D^S's; before the first step."""
        if self.config.cloning.told_return:
            returns = trajectories.scaled_return(trajectories.returns[trajectories.safe])
            cast(ToldActor, self.networks["actor"]).asked.fill_(float(np.median(returns)))

    def update(self, batch: Mapping[str, np.ndarray]) -> dict[str, float]:
        """One gradient step. Raises `DatasetError` for a batch of another source."""
        if missing := sorted({"states", "actions", "returns"} - batch.keys()):
            raise DatasetError(f"batch: {missing[0]}: missing; dspo does not learn online")
        self.step += 1
        states, actions, returns = (torch.as_tensor(batch[name], device=self.device) for name in
                                    ("states", "actions", "returns"))
        actor = cast(PlainActor, self.networks["actor"])
        actor.update_statistics(states)
        action = actor(states, returns) if self.config.cloning.told_return else actor(states)
        loss = (action.mean - actions).square().sum(-1).mean()
        norm = self.optimisers["actor"].step(loss, rate=rate_at(self.step, decay=self.config.cloning.steps))
        return {"cloning_loss": float(loss.detach()), "gradient_norm": norm}

    def policy(self) -> DspoPolicy:
        """A policy that shares the weights in training."""
        return DspoPolicy(self.features, self.networks["actor"], self.specs, self.device)

    @staticmethod
    def pretrain(data: Path, out: Path, config: DspoConfig, seed: int, device: str, resume: bool, checkpoint_every: int,
                 command: str) -> dict[str, Any]:
        """All stages on the split in `data` (`DspoRun`). Returns what each said."""
        from safe_policy_core.methods.dspo.pipeline import DspoRun  # it uses this module

        return DspoRun(data, out, config, seed, device, resume, checkpoint_every, command).run()

    @classmethod
    def load_policy(cls, directory: Path | str, device: torch.device | str = "cpu") -> DspoPolicy:
        """The policy of a checkpoint. Raises `CheckpointError`."""
        learner = cls.restored(directory, device)
        learner.networks["actor"].eval().requires_grad_(False)
        return learner.policy()
