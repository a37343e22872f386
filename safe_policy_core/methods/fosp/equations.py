"""FOSP's equations on plain tensors, each checked by hand in the tests. Numbers are those of the paper."""

from __future__ import annotations

import torch
from torch import Tensor


def expectile_loss(q: Tensor, value: Tensor, expectile: float) -> Tensor:
    """Eq. 7, elementwise: |kappa - 1{Q - V < 0}| (Q - V)^2. Kappa 0.5 is half the squared error."""
    error = q.detach() - value
    return torch.where(error < 0, 1 - expectile, expectile) * error.square()


def lambda_returns(rewards: Tensor, continues: Tensor, values: Tensor, discount: float, blend: float) -> Tensor:
    """Eq. 8, TD(lambda) along dimension 0, for the states s^0 .. s^{H-1}.

    All three arguments are (H, ...) and belong to the ARRIVAL states s^1 .. s^H: the reward
    received there, the probability of going on, and V. R^H = V(s^H), and
    R^h = r(s^{h+1}) + gamma c(s^{h+1}) ((1 - lambda) V(s^{h+1}) + lambda R^{h+1}).
    (The paper writes V(s^h) inside; the bootstrap must be of the next state.)
    """
    following, returns = values[-1], []
    for reward, going_on, value in zip(reversed(rewards), reversed(continues), reversed(values), strict=True):
        following = reward + discount * going_on * ((1 - blend) * value + blend * following)
        returns.append(following)
    return torch.stack(returns[::-1])


def one_step_target(reward: Tensor, terminal: Tensor, next_value: Tensor, discount: float) -> Tensor:
    """Target of eq. 10: r + gamma V(s_{t+1}), without the bootstrap where the episode terminated."""
    return reward + discount * (1 - terminal.to(reward.dtype)) * next_value


def recorded_targets(reward: Tensor, terminal: Tensor, next_value: Tensor, whole: Tensor, discount: float, blend: float
                     ) -> Tensor:
    """`one_step_target` along recorded windows, TD(lambda) as in eq. 8: all (B, L), rows in order of time.

    whole: 1 where a step is not across the end of an episode. A step's successor counts where it is whole.
    """
    targets = [one_step_target(reward[:, -1], terminal[:, -1], next_value[:, -1], discount)]
    for row in reversed(range(reward.shape[1] - 1)):
        following = torch.lerp(next_value[:, row], targets[-1], blend * whole[:, row + 1])
        targets.append(one_step_target(reward[:, row], terminal[:, row], following, discount))
    return torch.stack(targets[::-1], 1)


def violation_target(cost: Tensor, next_probability: Tensor, discount: float) -> Tensor:
    """Eq. 30 for the probability of a violation: max(1[cost > 0], gamma_u p(s_{t+1}))."""
    return torch.maximum((cost > 0).to(next_probability.dtype), discount * next_probability)


def offline_weight(feasibility: Tensor, advantage: Tensor, cost_advantage: Tensor, reward_temperature: float,
                   cost_temperature: float, largest: float) -> Tensor:
    """Eq. 19: u exp(beta1 A^r) + (1 - u) exp(-beta2 A^c), both exponentials clipped to `largest`."""
    good = (reward_temperature * advantage).exp().clamp(max=largest)
    safe = (-cost_temperature * cost_advantage).exp().clamp(max=largest)
    return feasibility * good + (1 - feasibility) * safe


def offline_weight_product(feasibility: Tensor, advantage: Tensor, cost_advantage: Tensor, reward_temperature: float,
                           cost_temperature: float, largest: float) -> Tensor:
    """exp of eq. 23's weight, clipped to `largest`: in place of eq. 19, see `FospConfig.weight_form`."""
    return online_weight(feasibility, advantage, cost_advantage, reward_temperature,
                         cost_temperature).exp().clamp(max=largest)


def online_weight(feasibility: Tensor, advantage: Tensor, cost_advantage: Tensor, reward_temperature: float,
                  cost_temperature: float) -> Tensor:
    """Eq. 23: u beta1 A^r - (1 - u) beta2 A^c."""
    return feasibility * reward_temperature * advantage - (1 - feasibility) * cost_temperature * cost_advantage


def expansion_utility(q: Tensor, cost_q: Tensor, largest_return: float, largest_cost_return: float) -> Tensor:
    """Eq. 22: Q~ = Q / Q^* - Q^c / C^*."""
    return q / largest_return - cost_q / largest_cost_return


def expansion_probabilities(utility: Tensor, temperature: float) -> Tensor:
    """Eq. 21: softmax over the policies (last dimension) of Q~ / alpha."""
    return (utility / temperature).softmax(-1)


def discounted_bound(largest: float, discount: float, steps: int) -> float:
    """Q^* and C^* of eq. 22: the sum of gamma^t x_max for t = 0 .. T."""
    return largest * (1 - discount ** (steps + 1)) / (1 - discount) if discount < 1 else largest * (steps + 1)
