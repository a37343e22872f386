"""QPT's training (Algorithm 1): critics by n-step targets, the policy by imitation with normalised penalties.

Deviations from the paper: a terminal step has a target (`n_step_targets`); the cost target is the
mean of the two estimates (eq. 7 takes the smaller one); L_DT is CDT's likelihood with a
learned temperature where eq. 3 has squared errors (`stochastic=false` is eq. 3); critics have ReLU
in place of Mish, which takes several times as long on a CPU; the means of eq. 9 and 10 are at least
the spread of the discounted sums in the data: where most states cost nothing the mean is so small that the policy did
whatever ends an episode (HopperVelocity: it fell).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from safe_policy_core.methods.qpt.config import QptConfig
from safe_policy_core.methods.qpt.equations import discounted_budget, n_step_targets
from safe_policy_core.methods.qpt.model import QptModel
from safe_policy_core.methods.qpt.policy import QptPolicy
from safe_policy_core.methods.sequence.learner import SequenceLearner
from safe_policy_core.methods.sequence.model import Windows
from safe_policy_core.networks.paired import follow


class QptLearner(SequenceLearner):
    """The same specs, config, seed and batches give the same numbers on a CPU."""

    method = "qpt"
    config_class = QptConfig
    model_class = QptModel
    policy_class = QptPolicy

    def trained(self) -> dict[str, tuple[nn.Module, float]]:
        return {**super().trained(), "critics": (self.model.critics, self.config.critic_learning_rate)}

    def learn(self, windows: Any) -> dict[str, Any]:
        metrics = self.learn_critics(windows)
        config = self.config
        # Eq. 9 and 10. The means are numbers here: nothing is differentiated through them.
        spread = self.model.critics.scale
        self.weights = (config.reward_weight / torch.maximum(metrics["reward_magnitude"], spread[0]),
                        config.safety_weight / torch.maximum(metrics["cost_magnitude"], spread[1]))
        metrics |= super().learn(windows)
        follow(self.model.target_actor, self.model.actor, config.target_rate)
        self.model.critics.update_targets()
        return metrics

    def learn_critics(self, windows: Windows) -> dict[str, Any]:
        """One step of the critics down eq. 6 and 7, and the mean size of their values."""
        last = windows.mask.sum(1) - 1
        count = (last + windows.terminal).sum().clamp(min=1)
        error, magnitude = torch.zeros(2, device=self.device), torch.zeros(2, device=self.device)
        for chunk in self.chunks(windows):
            targets, counts = self.critic_targets(chunk)
            values = self.model.critics(chunk.observations[counts], chunk.actions[counts])
            squares = self.model.critics.squares(values, targets[:, counts]).sum((1, 2)) / count
            self.optimisers["critics"].add(squares.sum())
            error += squares.detach()
            magnitude += values.detach().abs().mean(1).sum(1) / count
        norm = self.optimisers["critics"].apply()
        return {"reward_critic_loss": error[0], "cost_critic_loss": error[1], "reward_magnitude": magnitude[0],
                "cost_magnitude": magnitude[1], "critic_gradient_norm": norm}

    @torch.no_grad()
    def critic_targets(self, windows: Windows) -> tuple[Tensor, Tensor]:
        """(2, B, K) targets of reward and cost, and which steps have one, (B, K) bool."""
        actor, each = self.model.target_actor, torch.arange(len(windows.mask), device=self.device)
        last = windows.mask.sum(1) - 1
        features = actor.last_features(windows) if windows.mask.all() else actor.features(windows)[each, last]
        action = actor.act(features, torch.randn(len(last), self.model.action_dim, device=self.device))
        bootstrap = torch.stack(self.model.values(windows.observations[each, last], action, slow=True))
        received = torch.stack([windows.rewards, windows.costs])
        return n_step_targets(received, bootstrap, last, windows.terminal, self.config.discount)

    def policy_loss(self, windows: Windows, features: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Eq. 8: imitation, minus the weighted value, plus the weighted cost value of the policy's own actions."""
        loss, metrics = super().policy_loss(windows, features)
        normal = torch.randn(len(features), self.model.action_dim, device=self.device)
        value, cost = self.model.values(windows.observations[windows.mask], self.model.actor.act(features, normal))
        if self.config.penalise_excess:
            left = self.model.horizon - windows.time_steps[windows.mask]
            cost = (cost - discounted_budget(windows.costs_to_go[windows.mask], left, self.config.discount)).relu()
        value, cost, (reward_weight, safety_weight) = value.sum(), cost.sum(), self.weights
        metrics |= {"value": value.detach(), "cost_value": cost.detach()}
        return loss - reward_weight * value + safety_weight * cost, metrics
