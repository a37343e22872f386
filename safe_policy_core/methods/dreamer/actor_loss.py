"""The actor's loss: two estimates of the same gradient, of anything that is received along imagined steps."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from safe_policy_core.networks.distributions import BoundedGaussian
from safe_policy_core.world_model import ImaginedSteps


def expected(objective: Callable[[Tensor], Tensor], returns: Tensor, baseline: Tensor, likelihood: Tensor | None
             ) -> Tensor:
    """A term (H, N) whose gradient is that of the expectation of `objective(returns)`.

    returns: (H, N). Without `likelihood` they carry their graph through the world model to the actions. With it,
    log pi(a | s) of the imagined actions (H, N), the score function (objective(R) - objective(baseline)) log pi.
    """
    if likelihood is None:
        return objective(returns)
    return (objective(returns) - objective(baseline)).detach() * likelihood


def actor_loss(imagined: ImaginedSteps, distribution: BoundedGaussian, returns: Tensor, values: Tensor, scale: Tensor,
               entropy: float, reinforce: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """-E[R / max(1, S)] - eta H of DreamerV3 and FOSP's Appendix F, and metrics.

    distribution: pi at the states s^0 .. s^{H-1}. returns, values: (H, N). scale: S, at least 1.
    """
    likelihood = distribution.draw_log_probability(imagined.action) if reinforce else None
    gain = expected(lambda number: number / scale, returns, values, likelihood)
    entropies = distribution.entropy()
    metrics = {"actor/entropy": imagined.mean(entropies), "actor/return": imagined.mean(returns),
               "actor/advantage": imagined.mean((returns - values) / scale), "actor/scale": scale}
    return -imagined.mean(gain + entropy * entropies), metrics
