"""The conditional transformer policy: returns-to-go, costs-to-go, states and actions to action distributions.

Deviations from OSRL's CDT: inputs are scaled by the data (observations standardised, to-go sums by
the largest in the data) and not by constants for each task, which also replaces its cost transform
50 - x (linear, so that the embedding absorbs it); the cost head reads the state's feature and
the action instead of the action token's output, so that the last layer is computed for state
tokens alone; costs are targets between 0 and 1, not truncated to whole numbers; the
temperature is a parameter and is saved.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from safe_policy_core.data.dsrl import DsrlDataset
from safe_policy_core.data.sequences import returns_within, to_go
from safe_policy_core.errors import ConfigurationError
from safe_policy_core.interfaces import Specs
from safe_policy_core.methods.sequence.config import SequenceConfig
from safe_policy_core.networks.distributions import SquashedGaussian
from safe_policy_core.networks.linear import Linear
from safe_policy_core.networks.mlp import Mlp
from safe_policy_core.networks.normalisers import Standardiser
from safe_policy_core.networks.transformer import CausalTransformer

TOKEN_RANGE = 10.0
"""The largest return and the largest cost in the data become numbers of this size."""
LARGEST_STATE = 10.0
"""Standardised observations are clipped at this size: what lies further out was never in the data."""
ROWS_FOR_STATISTICS, FRONTIER_POINTS, FRONTIER_CANDIDATES = 200_000, 101, 1000


class Windows(NamedTuple):
    """B windows of K steps with the padding moved to the right, where the causal mask already hides it.

    observations (B, K, size), actions (B, K, action_dim), rewards, costs, returns_to_go, costs_to_go
    (B, K), time_steps (B, K) int64, mask (B, K) bool, terminal (B,) bool.
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    costs: Tensor
    returns_to_go: Tensor
    costs_to_go: Tensor
    time_steps: Tensor
    mask: Tensor
    terminal: Tensor

    def part(self, begin: int, end: int) -> Windows:
        """Some of the windows."""
        return Windows(*(value[begin:end] for value in self))


def align(batch: Mapping[str, Tensor]) -> Windows:
    """Left-padded windows (`SequenceStore.sample`) with their padding moved to the right."""
    windows = Windows(**{name: batch[name] for name in Windows._fields})
    padding = (~windows.mask).sum(1, keepdim=True)
    if not padding.any():
        return windows
    length = windows.mask.shape[1]
    index = (torch.arange(length, device=padding.device) + padding) % length
    turned = {name: value.gather(1, index.view(*index.shape, *[1] * (value.dim() - 2)).expand(value.shape))
              for name, value in windows._asdict().items() if name != "terminal"}
    return windows._replace(**turned)


def vector_size(specs: Specs) -> int:
    """Size of the one vector observation. Raises `ConfigurationError` for pictures and for several observations."""
    shapes = {name: spec.shape for name, spec in specs.observation.items()}
    if len(shapes) != 1 or len(shape := next(iter(shapes.values()))) != 1:
        raise ConfigurationError(f"observation: this method takes one vector, got {shapes}")
    return shape[0]


def smooth_code(steps: int, units: int) -> Tensor:
    """(steps, units): sines and cosines of wavelengths from 2 pi to 20,000 pi steps (Vaswani et al. 2017), halved.

    Where time embeddings begin: what a sum to go means depends on the time that is left, and separate random vectors
    would have to be learned for every step. Half as large as in the paper, as the tokens to which they are added.
    """
    rates = 10_000.0 ** (-torch.arange(0, units, 2) / units)
    angles = torch.arange(steps).unsqueeze(1) * rates
    return 0.5 * torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[:, :units]


class ConditionalTransformer(nn.Module):
    """pi(a_t | the last K steps) over scaled inputs: states standardised, to-go sums within about `TOKEN_RANGE`.

    `to_go` standardises the latter: the norm behind the embedding drops the size of w x + b, so that of sums far from 0
    hardly anything was left (a window's action did not depend on what it was asked for).
    """

    def __init__(self, inputs: int, action_dim: int, config: SequenceConfig) -> None:
        super().__init__()
        units = config.units
        self.stochastic, self.steps = config.stochastic, config.episode_length
        self.time = nn.Embedding(config.episode_length, units)
        self.return_token, self.cost_token = Linear(1, units), Linear(1, units) if config.use_cost else None
        self.state_token, self.action_token = Linear(inputs, units), Linear(action_dim, units)
        self.transformer = CausalTransformer(units, config.heads, config.layers, config.dropout)
        self.action_head = Linear(units, action_dim * (2 if config.stochastic else 1))
        self.cost_head = Mlp(units + action_dim, 1, units, 1) if config.use_cost else None
        self.tokens = 4 if config.use_cost else 3
        self.to_go = Standardiser(2, batches=1)
        with torch.no_grad():
            self.time.weight.copy_(smooth_code(config.episode_length, units))

    def embed(self, windows: Windows) -> Tensor:
        """(B, K, tokens, units) in the order of eq. 2: return-to-go, cost-to-go, state, action."""
        time = self.time(windows.time_steps.clamp(max=self.steps - 1))
        to_go = self.to_go(torch.stack([windows.returns_to_go, windows.costs_to_go], -1)).split(1, -1)
        tokens = [self.return_token(to_go[0]), self.state_token(windows.observations),
                  self.action_token(windows.actions)]
        if self.cost_token is not None:
            tokens.insert(1, self.cost_token(to_go[1]))
        return torch.stack(tokens, 2) + time.unsqueeze(2)

    def fixed_embedding(self) -> Callable[[Windows], Tensor]:
        """`embed` of one window, (1, K * tokens, units), for weights that stay: as one product."""
        spread = self.to_go.variance.sqrt().clamp(min=self.to_go.floor)
        layers = [(layer.weight / spread[number], layer.bias - self.to_go.mean[number] / spread[number]
                   * layer.weight[:, 0]) for number, layer in enumerate((self.return_token, self.cost_token)) if layer]
        layers += [(layer.weight, layer.bias) for layer in (self.state_token, self.action_token)]
        weight = torch.block_diag(*(weight for weight, _ in layers)).T.contiguous()
        bias, units, with_cost = torch.cat([bias for _, bias in layers]), len(self.time.weight[0]), self.tokens == 4

        def function(window: Windows) -> Tensor:
            sums = [window.returns_to_go.mT, window.costs_to_go.mT] if with_cost else [window.returns_to_go.mT]
            rows = torch.cat([*sums, window.observations[0], window.actions[0]], 1)
            time = self.time(window.time_steps[0].clamp(max=self.steps - 1))
            tokens = torch.addmm(bias, rows, weight).view(len(rows), -1, units).add_(time.unsqueeze(1))
            return tokens.view(1, -1, units)

        return function

    def fixed_return_slope(self) -> Tensor:
        """(units,): how a return-to-go's token changes with it, for weights that stay."""
        return self.return_token.weight[:, 0] / self.to_go.variance[0].sqrt().clamp(min=self.to_go.floor)

    def features(self, windows: Windows) -> Tensor:
        """Outputs of the state tokens, (B, K, units). The last action comes after all of them and is left out."""
        tokens = self.embed(windows).flatten(1, 2)[:, :-1]
        return self.transformer(tokens, rows=slice(self.tokens - 2, None, self.tokens))

    def last_features(self, windows: Windows) -> Tensor:
        """Output of the last state token of windows without padding, (B, units)."""
        tokens = self.embed(windows).flatten(1, 2)[:, :-1]
        return self.transformer(tokens, rows=slice(tokens.shape[1] - 1, None)).squeeze(1)

    def distribution(self, features: Tensor) -> SquashedGaussian:
        """Features -> the distribution of actions, where the head is stochastic."""
        return SquashedGaussian(self.action_head(features))

    def act(self, features: Tensor, normal: Tensor | None = None) -> Tensor:
        """Actions (..., action_dim): the mode, or with standard normal noise and a stochastic head a draw."""
        if not self.stochastic:
            return self.action_head(features).tanh()
        found = self.distribution(features)
        return found.mode if normal is None else found.raw_sample(normal).tanh()


class Temperature(nn.Module):
    """Weight of the entropy, learned in its logarithm. A module, so that it is in every checkpoint."""

    def __init__(self, initial: float) -> None:
        super().__init__()
        self.logarithm = nn.Parameter(torch.tensor(math.log(initial)))

    def forward(self) -> Tensor:
        return self.logarithm.exp()


def reward_frontier(dataset: DsrlDataset, quantile: float) -> tuple[np.ndarray, np.ndarray]:
    """`returns_within` as `FRONTIER_POINTS` costs, ascending from the cheapest episode's to the dearest's, and returns.

    The costs are those at which the return rises: all of them, or where there is no room, those at which it has risen
    by another hundredth of its range. In between it is that of the point before. (An even grid over the costs had one
    point below 10 where the dearest episode costs 1000.)
    """
    costs = np.unique(dataset.cost_returns)
    if len(costs) > FRONTIER_CANDIDATES:
        costs = costs[np.linspace(0, len(costs) - 1, FRONTIER_CANDIDATES).round().astype(int)]
    returns = returns_within(dataset, costs, quantile)
    rises = np.flatnonzero(np.diff(returns, prepend=-np.inf) > 0)
    if len(rises) >= FRONTIER_POINTS:
        levels = np.linspace(returns[0], returns[-1], FRONTIER_POINTS - 1)
        rises = np.unique(np.searchsorted(returns, levels))
    index = np.concatenate([rises, np.full(FRONTIER_POINTS - len(rises), len(costs) - 1)])
    return costs[index], returns[index]


class SequenceModel(nn.Module):
    """The policy with what was measured on its data, once, by `measure`.

    largest_return, largest_cost: of an episode. largest_step_cost: of a step. horizon: steps of the
    longest episode. frontier_cost, frontier_return: what is asked for at most a cost (`reward_frontier`).
    """

    largest_return: Tensor
    largest_cost: Tensor
    largest_step_cost: Tensor
    horizon: Tensor
    frontier_cost: Tensor
    frontier_return: Tensor

    def __init__(self, specs: Specs, config: SequenceConfig) -> None:
        super().__init__()
        if config.units % config.heads:
            raise ConfigurationError(f"heads: expected a divisor of units ({config.units}), got {config.heads}")
        self.config, self.inputs, self.action_dim = config, vector_size(specs), specs.action.shape[0]
        self.actor = ConditionalTransformer(self.inputs, self.action_dim, config)
        self.temperature = Temperature(config.initial_temperature)
        self.standardiser = Standardiser(self.inputs, batches=1)
        for name in ("largest_return", "largest_cost", "largest_step_cost", "horizon"):
            self.register_buffer(name, torch.ones(()))
        for name in ("frontier_cost", "frontier_return"):
            self.register_buffer(name, torch.zeros(FRONTIER_POINTS))

    @torch.no_grad()
    def measure(self, dataset: DsrlDataset) -> None:
        """Takes the scales of inputs and the reward frontier from the data."""
        some = slice(None, None, max(1, dataset.rows // ROWS_FOR_STATISTICS))
        self.standardiser.update(torch.as_tensor(dataset.observations[some], device=self.horizon.device))
        self.largest_return.fill_(float(np.abs(dataset.returns).max()) or 1.0)
        self.largest_cost.fill_(float(dataset.cost_returns.max()) or 1.0)
        self.largest_step_cost.fill_(float(dataset.costs.max()) or 1.0)
        self.horizon.fill_(int(dataset.lengths.max()))
        sums = np.stack([to_go(values, dataset)[some] for values in (dataset.rewards, dataset.costs)], -1)
        units = torch.stack([self.return_unit, self.cost_unit])
        self.actor.to_go.update(torch.as_tensor(sums, device=units.device) * units)
        costs, returns = reward_frontier(dataset, self.config.target_quantile)
        self.frontier_cost.copy_(torch.from_numpy(costs))
        self.frontier_return.copy_(torch.from_numpy(returns))

    @property
    def unknown_return(self) -> Tensor | None:
        """The return-to-go, scaled, of windows that begin with a prompt (`PromptedStore`); None: the one asked for."""
        return self.actor.to_go.mean[0] if self.config.prompt_steps else None

    def asked_return(self, cost: float) -> float:
        """The `target_quantile` of the returns of episodes of at most `cost`, or of the cheapest when there is none."""
        index = int((self.frontier_cost <= cost).sum()) - 1
        return float(self.frontier_return[max(index, 0)])

    @property
    def return_unit(self) -> Tensor:
        """What a return of 1 is for the networks; rewards and reward values are scaled alike."""
        return TOKEN_RANGE / self.largest_return

    @property
    def cost_unit(self) -> Tensor:
        return TOKEN_RANGE / self.largest_cost

    def states(self, observations: Tensor) -> Tensor:
        """Observations as the networks take them."""
        return self.standardiser(observations).clamp(-LARGEST_STATE, LARGEST_STATE)

    def scaled(self, windows: Windows) -> Windows:
        """Windows in the data's units -> as the networks take them."""
        return windows._replace(observations=self.states(windows.observations),
                                rewards=windows.rewards * self.return_unit, costs=windows.costs * self.cost_unit,
                                returns_to_go=windows.returns_to_go * self.return_unit,
                                costs_to_go=windows.costs_to_go * self.cost_unit)
