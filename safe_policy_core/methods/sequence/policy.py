"""A conditional transformer acting: targets that fall by what was received, and a history of K steps."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from safe_policy_core.errors import ConfigurationError
from safe_policy_core.interfaces import ActionDecision, Observation, Policy, Specs
from safe_policy_core.methods.ranges import warn_outside
from safe_policy_core.methods.sequence.model import SequenceModel, Windows
from safe_policy_core.networks.transformer import Continuation


class SequencePolicy(Policy):
    """Acts under a target return and a target cost, which `set_target_cost` changes for the episodes to come.

    `observe_outcome` must tell it each step's reward and cost: targets fall by them (Algorithm 1).
    Without, it acts as if nothing had been received yet.
    """

    def __init__(self, model: SequenceModel, specs: Specs, device: torch.device | str = "cpu") -> None:
        self.specs, self._model, self._device = specs, model, torch.device(device)
        (self._name,) = specs.observation
        self._generator = torch.Generator(self._device)
        self._next_target: tuple[float | None, float] = (model.config.target_return, self._trained_cost)
        self.reset(0)

    @property
    def _trained_cost(self) -> float:
        return self._model.config.target_cost

    @property
    def _branches(self) -> tuple[int, int]:
        """Continuations of one history, and their tokens (`Continuation.branch`)."""
        return 0, 0

    @property
    def target_cost(self) -> float:
        """Undiscounted cost that the current episode may have."""
        return self._target[1]

    @property
    def target_return(self) -> float:
        """Undiscounted return that the current episode asks for."""
        return self._target[0]

    def set_target_cost(self, cost: float | None, target_return: float | None = None) -> None:
        """Another threshold, without training, from the next `reset` on; None: what it was trained with.

        target_return: None asks for what few episodes of at most this cost exceed (`SequenceConfig.target_quantile`).
        A cost above any in the data counts all of them; one below the cheapest episode
        (0 where every episode has some) is allowed, is outside of what was learned, and is logged.
        Raises `ConfigurationError` for a negative or infinite cost, or a return that is not finite.
        """
        cheapest, dearest = float(self._model.frontier_cost[0]), float(self._model.frontier_cost[-1])
        if cost is None:
            self._next_target = (self._model.config.target_return, self._trained_cost)
            warn_outside("target_cost", self._trained_cost, cheapest, dearest)
            return
        if not (cost >= 0 and math.isfinite(cost)):
            raise ConfigurationError(f"target_cost: expected a number of at least 0, got {cost}")
        if target_return is not None and not math.isfinite(target_return):
            raise ConfigurationError(f"target_return: expected a finite number, got {target_return}")
        warn_outside("target_cost", cost, cheapest, dearest)
        self._next_target = (target_return, cost)

    def reset(self, seed: int) -> None:
        self._generator.manual_seed(seed)
        wanted, cost = self._next_target
        self._target = (self._model.asked_return(cost) if wanted is None else wanted, cost)
        self._remaining, self._steps = np.array(self._target), 0
        # The scales as plain arrays: a control step has no time for dozens of small tensor operations.
        model = self._model
        self._units = np.array([float(model.return_unit), float(model.cost_unit)])
        self._horizon = float(model.horizon)
        with torch.inference_mode():  # the weights as they are when the episode begins
            self._continuation = Continuation(model.actor.transformer, 1, model.actor.tokens * model.config.length,
                                              self._branches)
            self._embedding = model.actor.fixed_embedding()
        # What the episode was so far, as the network takes it.
        self._observations: list[np.ndarray] = []
        self._actions: list[np.ndarray] = []
        self._to_go: list[np.ndarray] = []
        self._prompted = self._kept = 0
        self._unknown_return: float | None = None

    def prompt(self, observations: np.ndarray, actions: np.ndarray, to_go: np.ndarray, keep: bool,
               told: bool = True) -> None:
        """Steps that count as what came before the episode (SAS). Later ones take the place of those that are kept.

        observations (L, size), actions (L, action_dim), to_go (L, 2) as the networks take it. They get the first time
        steps, and the episode the following ones. keep: they stay in the context; else they leave it in their turn.
        told: the return-to-go stands beside them; else, for a model that learned from prompts, an unknown one
        (`SequenceModel.unknown_return`). Raises `ConfigurationError` when they leave no room for the present step, or
        when the episode has begun and not as many are kept, in whose place they could come.
        """
        if len(actions) >= self._model.config.length:
            raise ConfigurationError(f"prompt: {len(actions)} steps do not fit into the context of "
                                     f"{self._model.config.length}")
        if self._steps and not (keep and len(actions) == self._kept):
            raise ConfigurationError(f"prompt: {self._kept} steps of one are kept, and {len(actions)} cannot take "
                                     "their place after the episode's first step")
        given, lists = (observations, actions, to_go), (self._observations, self._actions, self._to_go)
        self._observations, self._actions, self._to_go = (
            [*np.array(rows, np.float32), *mine[self._kept:]] for rows, mine in zip(given, lists, strict=True))
        self._prompted, self._kept = len(actions), len(actions) if keep else 0
        unknown = None if told else self._model.unknown_return
        # A number: a tensor on another device cannot be put into an array.
        self._unknown_return = None if unknown is None else float(unknown)
        if self._unknown_return is not None:
            for sums in self._to_go:
                sums[0] = self._unknown_return

    def observe_executed(self, action: np.ndarray) -> None:
        self._actions[-1] = np.array(action, np.float32)

    def observe_outcome(self, reward: float, cost: float) -> None:
        self._remaining -= (reward, cost)
        # More cost than allowed leaves nothing; no episode in the data has less than nothing to go.
        self._remaining[1] = max(self._remaining[1], 0.0)

    @torch.inference_mode()
    def act(self, observation: Observation, deterministic: bool = False) -> ActionDecision:
        self._observations.append(self.specs.validate_observation(observation)[self._name])
        self._actions.append(np.zeros(self._model.action_dim, np.float32))  # unknown yet, and seen by no token
        self._to_go.append(self._remaining * self._units)
        if self._unknown_return is not None:
            self._to_go[-1][0] = self._unknown_return
        for rows in (self._observations, self._actions, self._to_go):
            del rows[self._kept:max(self._kept, self._kept + len(rows) - self._model.config.length)]
        self._steps += 1
        decision = self._decide(self._history(), deterministic)
        self._actions[-1] = decision.action
        return decision

    def _history(self) -> Windows:
        """One window of what there is of the episode: shorter at its start, never padded."""
        return_to_go, cost_to_go = self._tensor(np.array(self._to_go, np.float32).T).unsqueeze(1)
        now, recent = self._steps + self._prompted, len(self._to_go) - self._kept
        numbers = [*range(self._kept), *range(now - recent, now)]
        steps = torch.tensor(numbers, device=self._device).unsqueeze(0)
        states = self._model.states(self._tensor(np.stack(self._observations))).unsqueeze(0)
        actions = self._tensor(np.stack(self._actions)).unsqueeze(0)
        # Rewards and costs are only looked at in training.
        return Windows(states, actions, return_to_go, cost_to_go, return_to_go, cost_to_go, steps, steps >= 0,
                       steps[:, 0] < 0)

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self._device)

    def _decide(self, history: Windows, deterministic: bool) -> ActionDecision:
        features = self._newest_features(history)
        return ActionDecision(self._action(features, deterministic)[0].cpu().numpy())

    def _newest_features(self, history: Windows) -> Tensor:
        """(1, units), as `ConditionalTransformer.last_features` in fewer and smaller operations."""
        self._continuation.restart()
        return self._continuation.extend(self._embedding(history)[:, :-1])

    def _action(self, features: Tensor, deterministic: bool) -> Tensor:
        """Actions (B, action_dim) of (B, units) features."""
        normal = None
        if not deterministic:
            normal = torch.randn(len(features), self._model.action_dim, generator=self._generator, device=self._device)
        return self._model.actor.act(features, normal)
