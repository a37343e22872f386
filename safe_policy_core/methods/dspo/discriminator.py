"""SafetyTransformer (DSPO section 3.1, Figure 2), and the MLP that it is compared with (Figure 4)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from safe_policy_core.methods.dspo.config import DiscriminatorConfig
from safe_policy_core.networks.linear import Linear
from safe_policy_core.networks.transformer import CausalTransformer


class Judgement(NamedTuple):
    """logit: (B,), z = sigmoid(logit). attention: (B, T), how much each step mattered, sum 1."""

    logit: Tensor
    attention: Tensor


class PreferenceAttention(nn.Module):
    """(B, T, inputs), mask (B, T) -> `Judgement`: z_t = sum_s alpha_ts v_s, averaged over the valid t.

    Deviation from section 3.1: alpha is the softmax of q . k / sqrt(d), as in Preference Transformer's code;
    without the scale it saturates at once for d = 256.
    """

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.query, self.key = Linear(inputs, units), Linear(inputs, units)
        self.value = Linear(inputs, 1)

    def forward(self, embeddings: Tensor, mask: Tensor) -> Judgement:
        query, key = self.query(embeddings), self.key(embeddings)
        scores = query @ key.transpose(1, 2) / math.sqrt(query.shape[-1])
        weights = scores.masked_fill(~mask[:, None, :], -torch.inf).softmax(-1)
        # Averaging z_t over t is weighing the values with the weights' average over t.
        attention = masked_mean(weights, mask[..., None])
        return Judgement((attention * self.value(embeddings).squeeze(-1)).sum(-1), attention)


class SafetyTransformer(nn.Module):
    """states (B, T, size), actions (B, T, action_dim), mask (B, T) -> `Judgement`.

    States and actions are two tokens a step, with the step's number; the embedding of a step is read at its
    action token, which has seen both. Padding is behind the valid steps, where causal attention never looks.
    """

    attends = True

    def __init__(self, size: int, action_dim: int, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.state, self.action = Linear(size, config.units), Linear(action_dim, config.units)
        self.time = nn.Parameter(0.02 * torch.randn(config.length, config.units))
        self.transformer = CausalTransformer(config.units, config.heads, config.layers, config.dropout)
        self.preference = PreferenceAttention(config.units, config.units)

    def forward(self, states: Tensor, actions: Tensor, mask: Tensor) -> Judgement:
        count, steps = mask.shape
        time = self.time[:steps]
        tokens = torch.stack([self.state(states) + time, self.action(actions) + time], 2)
        embeddings = self.transformer(tokens.view(count, 2 * steps, -1))[:, 1::2]
        return self.preference(embeddings, mask)


class MlpDiscriminator(nn.Module):
    """Like `SafetyTransformer`, from each step alone: its logits are averaged. Every step matters the same."""

    attends = False

    def __init__(self, size: int, action_dim: int, config: DiscriminatorConfig) -> None:
        super().__init__()
        # As many parameters: a transformer layer has 12 units^2, and here are two square ones.
        width = round(config.units * math.sqrt(12 * config.layers / 2))
        self.layers = nn.Sequential(
            Linear(size + action_dim, width), nn.ReLU(), nn.Dropout(config.dropout),
            Linear(width, width), nn.ReLU(), nn.Dropout(config.dropout),
            Linear(width, width), nn.ReLU(), nn.Dropout(config.dropout), Linear(width, 1))

    def forward(self, states: Tensor, actions: Tensor, mask: Tensor) -> Judgement:
        logits = self.layers(torch.cat([states, actions], -1)).squeeze(-1)
        attention = mask / mask.sum(1, keepdim=True)
        return Judgement((attention * logits).sum(1), attention)


NETWORKS: dict[str, type[SafetyTransformer] | type[MlpDiscriminator]] = {
    "transformer": SafetyTransformer, "mlp": MlpDiscriminator}


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over dimension 1 of the entries where `mask` (which broadcasts) is true."""
    return (values * mask).sum(1) / mask.sum(1)
