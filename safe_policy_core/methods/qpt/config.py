"""Settings of QPT."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from safe_policy_core.methods.ranges import AT_LEAST_0, AT_LEAST_1, SHARE_ABOVE_0, Range, check_ranges
from safe_policy_core.methods.sequence.config import BATCH, LENGTH, SequenceConfig

__all__ = ["BATCH", "LENGTH", "QptConfig"]

RANGES: dict[str, Range] = {
    **dict.fromkeys(("critic_units", "critic_layers", "candidates"), AT_LEAST_1),
    **dict.fromkeys(("critic_learning_rate", "reward_weight", "safety_weight", "return_noise"), AT_LEAST_0),
    **dict.fromkeys(("discount", "target_rate"), SHARE_ABOVE_0)}
"""Of the settings that QPT adds, by name."""


@dataclass(frozen=True)
class QptConfig(SequenceConfig):
    """QPT Table 4 and Appendix D.2; what the tables leave out is CDT's (`SequenceConfig`)."""

    sampled_cost: float | None = None
    """Who never sees what is dear does not learn that it is: with OSRL's 5 the third seed of CarCircle1 costs 5.7 for
    3.1, asked for the best (results/README.md)."""

    critic_units: int = 256
    critic_layers: int = 3
    """Hidden layers: four linear ones with the output."""
    critic_learning_rate: float = 3e-4
    discount: float = 0.99
    target_rate: float = 0.005
    """1 - rho of Algorithm 1, for the critics and for the policy."""
    reward_weight: float = 1.0
    """eta_1 of eq. 9; 0 trains without reward penalisation."""
    safety_weight: float = 1.0
    """eta_2 of eq. 10; 0 trains without cost penalisation."""
    penalise_excess: bool = False
    """Only the part of a cost value counts in eq. 8 that is above the cost-to-go which the policy was told. The paper
    penalises all of it; in five datasets neither was clearly better (results/README.md)."""
    cost_pessimism: Literal["max", "mean", "min"] = "mean"
    """Which of the two cost critics makes the target (eq. 7 has "min", which underestimates cost), and counts. The
    error of "max" adds up over the bootstraps of a short `length`; "mean" was calibrated (results/README.md)."""

    candidates: int = 50
    """Actions among which eq. 13 chooses; 1 acts by the targets alone."""
    return_noise: float = 0.1
    """Deviation of the candidates' returns-to-go, as a share of the largest return in the data."""
    drawn_candidates: bool = False
    """All candidates but the first are draws from the policy, where it is stochastic, also when acting
    deterministically. The paper's are its modes under other returns-to-go. Critics rate draws by their errors: in
    SafeReach an action within 0.3 moved the reward value by a tenth, of which one step can explain a hundredth, and
    draws cost three times as much (results/README.md)."""
    shared_history: bool = False
    """Candidates differ in the newest return-to-go alone, so that the history is computed once for all of them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, RANGES)


def _only(*parts: str) -> Callable[[], QptConfig]:
    """QPT with these of its four parts (Table 2): the others are switched off."""
    off: dict[str, dict[str, Any]] = {
        "augmentation": {"augmentation": 0.0}, "reward": {"reward_weight": 0.0}, "safety": {"safety_weight": 0.0},
        "ensemble": {"candidates": 1}}
    changes = {name: value for part in off.keys() - set(parts) for name, value in off[part].items()}
    return partial(replace, QptConfig(), **changes)


ABLATIONS: dict[str, Callable[[], QptConfig]] = {
    "nothing": _only(), "augmentation": _only("augmentation"), "reward": _only("augmentation", "reward"),
    "safety": _only("augmentation", "safety"), "penalties": _only("augmentation", "reward", "safety"),
    "ensemble": _only("augmentation", "ensemble"), "no_augmentation": _only("reward", "safety", "ensemble"),
    **{f"reward_{weight:g}": partial(replace, QptConfig(), reward_weight=weight) for weight in (0.1, 0.5, 2.0)},
    **{f"safety_{weight:g}": partial(replace, QptConfig(), safety_weight=weight) for weight in (0.1, 0.5, 2.0)},
    "draws": partial(replace, QptConfig(), drawn_candidates=True),
    **{f"candidates_{count}": partial(replace, QptConfig(), candidates=count) for count in (10, 30, 100)},
}
"""Experiments 1 to 7 of Table 2, eta_1 and eta_2 of Figure 1, and the candidates of Table 5 (1: "penalties").

"draws": candidates are draws, not modes under other returns-to-go as in the paper."""
PRESETS: dict[str, Callable[[], QptConfig]] = {"small": QptConfig, **ABLATIONS}
"""Name -> function that makes the configuration."""
