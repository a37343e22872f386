"""What a training of the offline comparison may take: for a processor's cores, or as the papers have it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Name = Literal["cores", "papers"]


@dataclass(frozen=True)
class Budget:
    """Gradient steps, batch (None: of the method) and settings, as `configuration` takes them."""

    steps: int
    batch: int | None = None
    settings: tuple[str, ...] = ()


SEQUENCE_MODELS = ("dt", "cdt", "cdt_v", "qpt")


def budget(name: Name, method: str, steps: int | None = None) -> Budget:
    """Of a method, by METHOD or METHOD:PRESET. steps: others than the budget's; rates fall over them.

    "cores" trains one policy in a few minutes of one core: 4000 steps, and networks and batches to match. "papers" is
    what the configurations say, QPT's 100,000 steps of 2048 sequences, and wants an accelerator.
    """
    method = method.partition(":")[0]
    if name == "papers":
        return Budget(steps or 100_000, 2048 if method in SEQUENCE_MODELS else None)
    steps = steps or 4000
    if method in SEQUENCE_MODELS:
        critics = ("stochastic=false", "critic_units=128", "critic_layers=2", "target_rate=0.05",
                   "critic_learning_rate=1e-3", "shared_history=true") if method == "qpt" else ()
        return Budget(steps, 64, ("units=64", "layers=2", "heads=4", "length=5", "warm_up=100", "learning_rate=1e-3",
                                  f"decay={steps}", "dropout=0", *critics))
    if method == "bc":
        return Budget(steps, 256, (f"decay={steps}",))
    vae = (f"{method}.vae_units=128",) if method in ("cpq", "bcq_lag", "bear_lag") else ()
    return Budget(steps, 256, ("units=128", *vae))
