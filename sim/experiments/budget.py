"""What a training of the offline comparison may take: for a processor's cores, or as the papers have it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from safe_policy_core.methods.overrides import preset

Name = Literal["cores", "papers"]


@dataclass(frozen=True)
class Budget:
    """Gradient steps, batch (None: of the method) and settings, as `configuration` takes them."""

    steps: int
    batch: int | None = None
    settings: tuple[str, ...] = ()


SEQUENCE_MODELS = ("dt", "cdt", "cdt_v", "qpt")
_QPT = ("stochastic=false", "critic_units=128", "critic_layers=2", "target_rate=0.05", "critic_learning_rate=1e-3",
        "shared_history=true")
_WEIGHTS_SWIM = (0.1, 0.1)
"""eta_1 and eta_2 for SwimmerVelocity: with weights of 1 the critics, not what was asked for, decide how fast it swims.
Chosen by seed 1's rewards on the layouts that are for choosing (results/README.md)."""
_WEIGHTS_FAR = (0.1, 6.0)
"""For PointGoal1, where an action moves Q^c by less of the costs' spread (by which eq. 10 divides here) than elsewhere.
Chosen by seed 0's costs on the layouts that are for choosing; in the other datasets such weights take the reward
(results/README.md)."""


def budget(name: Name, method: str, dataset: str, steps: int | None = None) -> Budget:
    """Of a method, by METHOD or METHOD:PRESET, on a dataset. steps: others than the budget's; rates fall over them.

    "cores" trains one policy in a few minutes of one core: 4000 steps, and networks and batches to match. PointGoal1,
    which takes more of them to be imitated (results/README.md), has twice as many. "papers" is what the
    configurations say, QPT's 100,000 steps of 2048 sequences, and wants an accelerator.

    A dataset's weights of QPT are multiplied by the preset's, so that its ablations stay what they are: 0 stays 0, and
    "reward_2" is twice what this dataset has.
    """
    method, _, chosen = method.partition(":")
    if name == "papers":
        return Budget(steps or 100_000, 2048 if method in SEQUENCE_MODELS else None)
    far = dataset == "PointGoal1"
    steps = steps or (8000 if far else 4000)
    if method in SEQUENCE_MODELS:
        qpt = (*_QPT, *_qpt_weights(chosen, dataset)) if method == "qpt" else ()
        return Budget(steps, 64, ("units=64", "layers=2", "heads=4", f"length={10 if far else 5}", "warm_up=100",
                                  "learning_rate=1e-3", f"decay={steps}", "dropout=0", *qpt))
    if method == "bc":
        return Budget(steps, 256, (f"decay={steps}",))
    vae = (f"{method}.vae_units=128",) if method in ("cpq", "bcq_lag", "bear_lag") else ()
    return Budget(steps, 256, ("units=128", *vae))


def _qpt_weights(chosen: str, dataset: str) -> tuple[str, ...]:
    """The settings that a dataset has for itself, with the preset's own weights in them."""
    if dataset not in ("PointGoal1", "SwimmerVelocity"):
        return ()
    config = preset("qpt", chosen or "small")
    reward, safety = _WEIGHTS_FAR if dataset == "PointGoal1" else _WEIGHTS_SWIM
    weights = (f"reward_weight={config.reward_weight * reward:g}", f"safety_weight={config.safety_weight * safety:g}")
    return (*weights, "sample_by_cost=false") if dataset == "PointGoal1" else weights
