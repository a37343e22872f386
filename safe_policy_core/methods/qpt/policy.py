"""QPT acting: candidates under different returns-to-go, and the best that the cost critic allows (eq. 13, 14)."""

from __future__ import annotations

import torch
from torch import Tensor

from safe_policy_core.interfaces import ActionDecision, Specs
from safe_policy_core.methods.qpt.equations import choose, discounted_budget
from safe_policy_core.methods.qpt.model import QptModel
from safe_policy_core.methods.sequence.model import TOKEN_RANGE, Windows
from safe_policy_core.methods.sequence.policy import SequencePolicy

WITHIN, LOWEST = "within_budget", "lowest_cost"
"""`ActionDecision.chosen_policy`: whether a candidate met eq. 14. An episode's shares of both are in its summary."""


class QptPolicy(SequencePolicy):
    """`infeasible_steps` counts the steps of this episode in which no candidate was within the cost budget.

    The candidates' returns-to-go differ from the target by noise drawn once an episode; the first has none.
    """

    _model: QptModel

    def __init__(self, model: QptModel, specs: Specs, device: torch.device | str = "cpu") -> None:
        self._offsets = torch.zeros(model.config.candidates, device=device)
        self.infeasible_steps = 0
        super().__init__(model, specs, device)

    def reset(self, seed: int) -> None:
        super().reset(seed)
        self.infeasible_steps = 0
        noise = torch.randn(self._offsets.shape, generator=self._generator, device=self._device)
        self._offsets = noise * (TOKEN_RANGE * self._model.config.return_noise)
        self._offsets[0] = 0
        with torch.inference_mode():
            self._cost_value = self._model.fixed_cost_value()
            self._return_slope = self._model.actor.fixed_return_slope()

    @property
    def _branches(self) -> tuple[int, int]:
        shared = self._model.config.shared_history and len(self._offsets) > 1
        return (len(self._offsets), self._model.actor.tokens - 1) if shared else (0, 0)  # all of a step but its action

    def _decide(self, history: Windows, deterministic: bool) -> ActionDecision:
        actions = self._candidate_actions(self._candidate_features(history), deterministic)
        state = history.observations[:, -1]
        return_unit, cost_unit = self._units
        if len(actions) == 1:
            # Nothing to choose: what it will cost is told, and the reward's critics are spared.
            index, value, paid = 0, None, float(self._cost_value(state, actions))
            feasible = paid <= self._budget()
        else:
            values, costs = (rated.flatten() for rated in self._model.values(state, actions.unsqueeze(1), slow=True))
            index, feasible = choose(values, costs, self._budget())
            value, paid = float(values[index]) / return_unit, float(costs[index])
        self.infeasible_steps += not feasible
        return ActionDecision(actions[index].cpu().numpy(), value, paid / cost_unit,
                              chosen_policy=WITHIN if feasible else LOWEST)

    def _candidate_actions(self, features: Tensor, deterministic: bool) -> Tensor:
        """Actions (candidates, action_dim). Deterministic, the first is the mode under the target itself."""
        actor, config = self._model.actor, self._model.config
        if len(features) == 1 or not (deterministic and config.stochastic and config.drawn_candidates):
            return self._action(features, deterministic)
        return torch.cat([actor.act(features[:1]), self._action(features[1:], deterministic=False)])

    def _budget(self) -> float:
        """The cost still allowed as a discounted, scaled value (eq. 14's c^, which is undiscounted)."""
        left = self._horizon - (self._steps - 1)
        return discounted_budget(self._remaining[1] * self._units[1], left, self._model.config.discount)

    def _candidate_features(self, history: Windows) -> Tensor:
        """Features of the newest state under each candidate's return-to-go, (candidates, units)."""
        count, actor = len(self._offsets), self._model.actor
        if count == 1:
            return self._newest_features(history)
        if self._branches[0]:
            return self._branched_features(history)
        many = Windows(*(part.expand(count, *part.shape[1:]) for part in history))
        return actor.last_features(many._replace(returns_to_go=many.returns_to_go + self._offsets.unsqueeze(1)))

    def _branched_features(self, history: Windows) -> Tensor:
        """As `last_features`, where the candidates differ in the newest return-to-go alone.

        What came before is the same for all and computed once; exact, since no earlier token sees a later one.
        """
        tokens, (count, length) = self._embedding(history)[:, :-1], self._branches
        self._continuation.restart()
        if tokens.shape[1] > length:
            self._continuation.extend(tokens[:, :-length])
        candidates = tokens[:, -length:].repeat(count, 1, 1)
        candidates[:, 0].addcmul_(self._offsets.unsqueeze(1), self._return_slope)
        return self._continuation.branch(candidates)
