"""Settings of the baselines, one dataclass each."""

from __future__ import annotations

from dataclasses import dataclass

from safe_policy_core.methods.ranges import (
    ABOVE_0,
    AT_LEAST_0,
    AT_LEAST_1,
    BELOW_1,
    BETWEEN_0_AND_1,
    SHARE,
    SHARE_ABOVE_0,
    Range,
    check_ranges,
)

BATCH, LENGTH = 512, 1
"""Steps of a training batch; a step stands alone."""
RANGES: dict[str, Range] = {
    **dict.fromkeys(("units", "layers", "vae_units", "candidates", "mmd_samples", "samples", "steps", "actor_every",
                     "demonstrations"), AT_LEAST_1),
    **dict.fromkeys(("learning_rate", "actor_learning_rate", "vae_learning_rate", "dual_learning_rate",
                     "correction_learning_rate", "cost_limit", "kl_weight", "perturbation", "mmd_limit", "outside_cost",
                     "recovery", "cost_divergence", "blocks"), AT_LEAST_0),
    **dict.fromkeys(("reward_scale", "mmd_width", "divergence"), ABOVE_0),
    **dict.fromkeys(("discount", "expectile"), BETWEEN_0_AND_1),
    **dict.fromkeys(("target_rate", "actor_target_rate", "demonstration_share"), SHARE_ABOVE_0),
    "soft_clipping": SHARE, "dropout": BELOW_1}
"""Of the settings of all methods of this family, by name."""


@dataclass(frozen=True)
class OfflineConfig:
    """What every method of this family has."""

    units: int = 256
    """Hidden units of every network."""
    layers: int = 2
    """Hidden layers of every network."""
    learning_rate: float = 3e-4
    actor_learning_rate: float = 3e-4
    discount: float = 0.99
    target_rate: float = 0.005
    """How far slow copies move towards their networks at every step."""
    reward_scale: float = 1.0
    """Rewards are scaled so that a step of the dataset's best episode gives this much more than one of the worst."""
    standardise: bool = True
    """Observations, by the dataset. OSRL takes them as they are, which is better where lidars that are nearly always
    0 are blown up (PointCircle1), and worse in PointGoal1 (results/README.md)."""

    def __post_init__(self) -> None:
        check_ranges(self, RANGES)


@dataclass(frozen=True)
class ConstrainedConfig(OfflineConfig):
    """What the methods with a cost limit have."""

    learning_rate: float = 1e-3
    reward_scale: float = 0.1
    cost_limit: float = 10.0
    """Largest sum of costs of an episode."""


@dataclass(frozen=True)
class LagrangianConfig(ConstrainedConfig):
    """What BCQ-Lag and BEAR-Lag share. Defaults are OSRL's."""

    actor_learning_rate: float = 1e-3
    vae_units: int = 400
    vae_learning_rate: float = 1e-3
    kl_weight: float = 0.5
    """Of the latent's divergence in the model of the data's actions, against the squared error."""
    candidates: int = 10
    """Actions drawn at a next state, of which the best counts."""
    soft_clipping: float = 0.75
    """lambda of BCQ eq. 13: weight of the smaller estimate of reward, and of the larger one of cost."""
    gains: tuple[float, float, float] = (0.1, 0.003, 0.001)
    """Of the multiplier's PID controller: proportional, integral, derivative."""


@dataclass(frozen=True)
class BcqLagConfig(LagrangianConfig):
    """BCQ with a Lagrangian."""

    perturbation: float = 0.05
    """Phi: how far the policy may move an action of the data."""


@dataclass(frozen=True)
class BearLagConfig(LagrangianConfig):
    """BEAR with a Lagrangian."""

    mmd_samples: int = 10
    """Actions of the data's model and of the policy that are compared at a state."""
    mmd_width: float = 50.0
    """sigma of the Gaussian kernel exp(-d^2 / (2 sigma))."""
    mmd_limit: float = 0.05
    dual_learning_rate: float = 1e-3


@dataclass(frozen=True)
class CpqConfig(ConstrainedConfig):
    """Constraints penalised Q-learning. Defaults are OSRL's."""

    actor_learning_rate: float = 1e-4
    vae_units: int = 400
    vae_learning_rate: float = 1e-3
    kl_weight: float = 0.5
    """Of the latent's divergence in the model of the data's actions, against the squared error."""
    samples: int = 10
    """Actions of the policy drawn at a state, of which the one farthest from the data is penalised."""
    outside_cost: float = 1.5
    """What its cost value is raised to, in units of the limit, a limit below 1 counting as 1."""
    recovery: float = 1.0
    """How much a cost value above the limit weighs in the policy's objective; 0 is the paper's."""
    dual_learning_rate: float = 1e-4


@dataclass(frozen=True)
class CoptidiceConfig(ConstrainedConfig):
    """COptiDICE. Defaults are OSRL's."""

    learning_rate: float = 1e-4
    actor_learning_rate: float = 1e-4
    dual_learning_rate: float = 1e-4
    """Of the multiplier lambda and the temperature tau."""
    divergence: float = 0.5
    """alpha: how much staying near the data weighs against reward."""
    cost_divergence: float = 0.01
    """epsilon: how far the distribution under which the cost is bounded may be from the data's [nats]; 0: no bound."""


@dataclass(frozen=True)
class FisorConfig(OfflineConfig):
    """FISOR. It has no cost limit: its constraint is never to reach a cost that can be avoided."""

    expectile: float = 0.9
    """Of the reward value, and of the feasible value from the other side."""
    violation: float = 25.0
    """h of a step with cost; it is -1 without."""
    reward_temperature: float = 3.0
    cost_temperature: float = 5.0
    largest_reward_weight: float = 100.0
    largest_cost_weight: float = 150.0
    steps: int = 5
    """Of the diffusion."""
    candidates: int = 16
    """Actions drawn when acting, of which the most feasible is taken."""
    blocks: int = 3
    """Residual blocks of the denoiser."""
    dropout: float = 0.1
    actor_target_rate: float = 0.001
    """Of the averaged weights that act."""


@dataclass(frozen=True)
class Td3BcConfig(OfflineConfig):
    """TD3+BC."""

    behaviour: float = 2.5
    """alpha: weight of the value against the squared error."""
    target_noise: float = 0.2
    largest_target_noise: float = 0.5
    actor_every: int = 2
    """Steps of the critics between those of the actor."""


@dataclass(frozen=True)
class IqlConfig(OfflineConfig):
    """Implicit Q-learning."""

    expectile: float = 0.7
    temperature: float = 3.0
    """beta: the weight of an action is exp(beta * advantage)."""
    largest_weight: float = 100.0


@dataclass(frozen=True)
class CqlConfig(OfflineConfig):
    """Conservative Q-learning, CQL(H) on soft actor-critic."""

    actor_learning_rate: float = 1e-4
    conservatism: float = 5.0
    """alpha: weight of the penalty on values of actions that are not in the data."""
    samples: int = 10
    """Actions of each kind for the penalty: uniform, of the policy here, of the policy at the next state."""


@dataclass(frozen=True)
class DemonstrationsConfig(OfflineConfig):
    """What the methods have that learn from a few safe demonstrations and unlabelled data."""

    demonstrations: int = 12
    """Safe episodes that are known to be safe; all others are unlabelled."""
    cost_limit: float = 0.0
    """Largest sum of costs of an episode that may be a demonstration. Costs serve for nothing else."""
    demonstration_share: float = 0.5
    """They are drawn from this share of the safe episodes, those with the highest returns."""


@dataclass(frozen=True)
class DwbcConfig(DemonstrationsConfig):
    """Discriminator-weighted behavioural cloning."""

    imitation: float = 7.5
    """alpha: weight of imitating the demonstrations as they are."""
    positive_share: float = 0.5
    """eta: share of the unlabelled data that is taken to be as good as the demonstrations."""


@dataclass(frozen=True)
class RgmConfig(DemonstrationsConfig):
    """Reward gap minimisation."""

    divergence: float = 1.0
    """alpha: how much staying near the data weighs against the corrected reward."""
    largest_correction: float = 5.0
    """Bound of the reward correction, in units of the scaled reward."""
    correction_learning_rate: float = 3e-5
    """Much smaller than that of the value: the upper level moves slowly (section 4.3)."""
