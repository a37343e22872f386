"""Settings of DSPO, one dataclass a stage."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from safe_policy_core.errors import ConfigurationError


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Stage 1: the safety signal (section 3.1)."""

    network: Literal["transformer", "mlp"] = "mlp"
    """SafetyTransformer (the paper's), or a per-step MLP of similar size (Figure 4). From a dozen short demonstrations
    the MLP learned more of safety (area under the curve on SafeReach's unlabelled 0.85, transformer 0.73); only the
    transformer says which steps mattered."""
    inputs: Literal["changes", "states"] = "changes"
    """Of a step: the state less the trajectory's first one, or the state (the paper's). From states, a dozen
    demonstrations are known by the scenes that they happened in, which says nothing of safety (`inputs`)."""
    opposite: Literal["rivals", "all"] = "rivals"
    """Unlabelled trajectories that are shown as the other kind: those that earned at least as much as a demonstration
    (`DiscriminatorSource`), or all (the paper's). One that earned less may be as safe as any demonstration and is only
    told apart by being poor; one that earned more is the likeliest to have paid for it in safety."""
    folds: int = 4
    """Discriminators, each trained without its share of both kinds of trajectories, which it then judges. Its logits
    are standardised by those of the unlabelled among them. 1: one, which judges what it was trained on, by its logits
    as they are (the paper's): it knows the demonstrations by heart, and all others are 0."""
    layers: int = 1
    heads: int = 1
    units: int = 32
    dropout: float = 0.1
    length: int = 10
    """Steps of a trajectory that are seen at once; the signal of a longer one averages over its pieces. Short ones are
    harder to know by heart."""
    batch: int = 32
    """Half of it safe demonstrations, half unlabelled trajectories."""
    steps: int = 200
    learning_rate: float = 1e-3
    return_weight: float = 0.05
    """Of I_vCLUB (eq. 4) beside L_D (eq. 1). 0: without return-agnostic learning. The paper does not say. With more the
    discriminator outruns q where safety goes with the return, and the signal turns around with some seeds
    (HopperVelocity, area under the curve of the unlabelled's safety, two splits and four seeds: 0.90 to 0.93 with 0 and
    0.05, 0.51 to 0.91 with 0.2). In the example of Figure 3, which has longer to learn, 1 to 2 is best."""
    bins: int = 10
    """Classes of q(r | z): returns between the lowest and the highest, in equal parts."""
    classifier_units: int = 64
    classifier_learning_rate: float = 3e-3
    classifier_steps: int = 2
    """Likelihood steps of q before each step of the discriminator."""
    gradient_penalty: float = 0.0
    """Weight of (|gradient| - 1)^2 at mixtures of both kinds of trajectories (Table 2, "gp")."""


@dataclass(frozen=True)
class DiffusionConfig:
    """Stage 2: trajectories given return and safety signal (section 3.2), and D^G."""

    horizon: int = 32
    """Steps of a piece of a trajectory; a multiple of 2^(levels - 1)."""
    dim: int = 32
    multipliers: tuple[int, ...] = (1, 2, 4)
    diffusion_steps: int = 200
    batch: int = 64
    steps: int = 3000
    predicts: Literal["clean", "noise"] = "clean"
    """What the U-Net says. Noise (eq. 6) is different in every number: a network with no more channels inside than
    outside loses it (SafeReach, 32 of each: an error of 0.54 after 1200 steps, where 1 is to know nothing)."""
    learning_rate: float = 1e-3
    ema: float = 0.995
    """Share of the average of weights, which generates, that one step keeps; less in the first steps, of which step n
    keeps n / (n + 10). The paper does not speak of an average."""
    condition_dropout: float = 0.25
    """How often the conditions are left out in training."""
    guidance: float = 1.2
    signal_quantile: float = 0.5
    """Of the demonstrations' safety signals: what D^G is asked for. The paper takes the smallest (0); of signals that
    were given by discriminators that had not seen the demonstrations, one is always far off."""
    generated: int = 256
    """Trajectories of D^G. 0: none, and no diffusion is trained."""
    sampling_steps: int = 10
    sampling_eta: float = 0.0
    """0: DDIM. 1 with as many sampling steps as diffusion steps: DDPM."""


ASKED_LATER = ("guidance", "signal_quantile", "generated", "sampling_steps", "sampling_eta")
"""Settings of `DiffusionConfig` that are asked of a trained diffusion: no part of its training depends on them."""


@dataclass(frozen=True)
class CloningConfig:
    """Stage 3: behaviour cloning on D^S and D^G."""

    units: int = 256
    layers: int = 2
    batch: int = 256
    steps: int = 3000
    learning_rate: float = 1e-3
    """At first; it falls along half a cosine to a thirtieth."""
    recalled: float | None = None
    """Unlabelled trajectories are cloned too whose signal is at least this quantile of the demonstrations'
    (`trajectories.recalled`). None: D^S and D^G alone (the paper's)."""
    told_return: bool = False
    """The clone is told the return of the trajectory that it imitates, and asked for the median of D^S's when it acts:
    the slow, who are the most certainly safe, teach it where to go, and not to be slow."""


@dataclass(frozen=True)
class DspoConfig:
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    cloning: CloningConfig = field(default_factory=CloningConfig)
    image_features: int = 32
    """Principal components that stand for an image."""


def check(config: DspoConfig) -> None:
    """Raises `ConfigurationError` for settings that would fail in a later stage, with what was trained before lost."""
    diffusion, recalled_from = config.diffusion, config.cloning.recalled
    stride = 2 ** (len(diffusion.multipliers) - 1) if diffusion.multipliers else 1
    settings = {
        "cloning.recalled": ("a number from 0 to 1, or none", recalled_from,
                             recalled_from is None or 0 <= recalled_from <= 1),
        "diffusion.generated": ("a count", diffusion.generated, diffusion.generated >= 0),
        "diffusion.horizon": (f"a multiple of {stride}, by the number of multipliers", diffusion.horizon,
                              diffusion.horizon > 0 and diffusion.horizon % stride == 0),
        "diffusion.diffusion_steps": ("at least 1", diffusion.diffusion_steps, diffusion.diffusion_steps >= 1),
        "diffusion.sampling_steps": (f"1 to diffusion.diffusion_steps, {diffusion.diffusion_steps}",
                                     diffusion.sampling_steps,
                                     1 <= diffusion.sampling_steps <= diffusion.diffusion_steps),
        "diffusion.sampling_eta": ("a number from 0 to 1", diffusion.sampling_eta, 0 <= diffusion.sampling_eta <= 1),
        "diffusion.signal_quantile": ("a number from 0 to 1", diffusion.signal_quantile,
                                      0 <= diffusion.signal_quantile <= 1)}
    for name, (expected, got, fits) in settings.items():
        if not fits:
            raise ConfigurationError(f"{name}: expected {expected}, got {got}")


def full() -> DspoConfig:
    """Sizes of the paper."""
    return DspoConfig(DiscriminatorConfig("transformer", layers=3, units=256, length=100, steps=5000, batch=64,
                                          learning_rate=1e-4),
                      DiffusionConfig(horizon=100, dim=128, multipliers=(1, 4, 8), steps=100_000, predicts="noise",
                                      learning_rate=2e-4),
                      CloningConfig(steps=50_000))


def recalled(config: DspoConfig | None = None) -> DspoConfig:
    """No diffusion: cloned is what was recorded, the demonstrations and those that are judged as safe as they are.

    All else is that of `config`. `results/dspo.md` has both.
    """
    config = config or DspoConfig()
    return replace(config, diffusion=replace(config.diffusion, generated=0),
                   cloning=replace(config.cloning, recalled=0.75, told_return=True))


PRESETS = {"small": DspoConfig, "recalled": recalled, "full": full}
"""Name -> function that makes the configuration."""
