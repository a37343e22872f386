"""Settings that the sequence models have in common."""

from __future__ import annotations

from dataclasses import dataclass, field

from safe_policy_core.methods.offline.config import RgmConfig
from safe_policy_core.methods.ranges import (
    ABOVE_0,
    AT_LEAST_0,
    AT_LEAST_1,
    BELOW_1,
    FINITE,
    SHARE_ABOVE_0,
    Range,
    check_ranges,
)

BATCH, LENGTH = 256, 1
"""Windows of a training batch (the papers' 2048 is for a GPU); their length is in the configuration."""
RANGES: dict[str, Range] = {
    **dict.fromkeys(("length", "layers", "heads", "units", "episode_length", "chunk", "rgm_steps", "rgm_batch"),
                    AT_LEAST_1),
    **dict.fromkeys(("cost_weight", "learning_rate", "weight_decay", "warm_up", "decay", "augmentation", "prompt_steps",
                     "target_cost"), AT_LEAST_0),
    **dict.fromkeys(("initial_temperature", "gradient_clip", "sampled_cost"), ABOVE_0),
    **dict.fromkeys(("target_entropy", "target_return"), FINITE), "dropout": BELOW_1, "target_quantile": SHARE_ABOVE_0}
"""Of settings, by name. Whether `heads` divides `units` is for the model: settings are changed one by one."""


@dataclass(frozen=True)
class SequenceConfig:
    """A conditional transformer policy (QPT section 3.2 and Table 4; CDT as in OSRL where the paper is silent)."""

    length: int = 10
    """K, steps of history."""
    layers: int = 3
    heads: int = 8
    units: int = 128
    dropout: float = 0.1
    """Of embeddings and residuals. Attention weights have none: it cost more time than anything else there."""
    episode_length: int = 1000
    """Time steps with an embedding of their own; later ones share the last."""

    use_cost: bool = True
    """Condition on the cost-to-go."""
    stochastic: bool = True
    """Tanh-Gaussian actions by likelihood with a learned temperature (CDT); else the squared error of eq. 3."""
    initial_temperature: float = 0.1
    target_entropy: float | None = None
    """Entropy [nats] that the temperature aims at; None: minus the number of action elements."""
    cost_weight: float = 0.02
    """Weight of the cost head's loss."""

    learning_rate: float = 1e-4
    weight_decay: float = 1e-4
    gradient_clip: float = 0.25
    warm_up: int = 500
    """Steps over which the learning rate rises from 0."""
    decay: int = 0
    """Steps over which it then falls, along half a cosine, to a thirtieth of itself; 0: it stays. A short training ends
    in noise without."""
    chunk: int = 128
    """Sequences that are computed at once; gradients of a batch are sums over its chunks. Chunks stay in the cache."""

    sample_by_cost: bool = True
    """Draw cheap episodes more often, by OSRL's linear rule: the dearer, the less, and from `sampled_cost` on never."""
    sampled_cost: float | None = 5.0
    """In multiples of the target cost. OSRL has 50 for a target of 10. None: a little above the dearest episode."""
    augmentation: float = 0.2
    """Relabelled episodes (Algorithm 2) as a share of the dataset's."""

    prompt_steps: int = 0
    """Half of the windows begin with so many steps from elsewhere in their episode and do not say which return is to
    go, so that the model can be told by a prompt how to behave (SAS; Prompt-DT). 0: none do."""

    target_cost: float = 10.0
    """Cost that an episode may have, unless `set_target_cost` says otherwise."""
    target_return: float | None = None
    """Return to ask for; None: by `target_quantile`."""
    target_quantile: float = 0.95
    """Of the returns of episodes of at most the target cost. The best of them (1) was often luck: one empty way among
    hundreds, or a driver on the edge. Who asks for it is given that driver (results/README.md)."""

    def __post_init__(self) -> None:
        check_ranges(self, RANGES)


@dataclass(frozen=True)
class DtConfig(SequenceConfig):
    """No cost anywhere: neither as a token nor in what is sampled."""

    use_cost: bool = False
    stochastic: bool = False
    sample_by_cost: bool = False
    augmentation: float = 0.0


@dataclass(frozen=True)
class CdtConfig(SequenceConfig):
    """The shared settings are CDT's."""


@dataclass(frozen=True)
class CdtVConfig(SequenceConfig):
    """CDT without cost labels. Its target cost is that of the demonstrations, so that `target_cost` is not used."""

    sampled_cost: float | None = None

    rgm: RgmConfig = field(default_factory=RgmConfig)
    """Of RGM, whose reward corrections are the costs."""
    rgm_steps: int = 3000
    """Its gradient steps, before the first of CDT."""
    rgm_batch: int = 256
