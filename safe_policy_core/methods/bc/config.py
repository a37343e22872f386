"""Settings of behaviour cloning."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class BcConfig:
    """BC-Safe by default; `selection="all"` makes it BC-All."""

    selection: Literal["safe", "all"] = "safe"
    """Which episodes to imitate: the safe ones, or every one."""
    cost_limit: float = 0.0
    """Largest sum of costs of an episode that counts as safe."""
    only_successful: bool = True
    """Of those, only the ones that reached the goal. An episode that never reaches teaches not to. DSRL files know no
    goals, and their episodes are all taken to have reached it."""
    loss: Literal["squared", "likelihood"] = "squared"
    """Squared error of the mean, or the likelihood of a Gaussian whose deviation is learned too."""

    depth: int = 32
    """Channels of the image encoder at the finest stage."""
    stem: int = 4
    """Side of the patches [pixels] on which it works."""
    units: int = 256
    """Hidden units, also of the encoder of vectors beside images."""
    layers: int = 2
    """Hidden layers; where there are images, behind the encoder."""

    learning_rate: float = 1e-3
    decay: int = 0
    """Steps over which it falls, along half a cosine, to a thirtieth; 0: it stays."""
    gradient_clip: float = 10.0
    shift: int = 0
    """Largest random shift of training images [pixels], by repeating their border."""


PRESETS = {"small": BcConfig, "all": lambda: replace(BcConfig(), selection="all", only_successful=False)}
"""Name -> function that makes the configuration."""
BATCH, LENGTH = 128, 1
"""Sequences of a training batch and their rows: without memory, rows are better drawn one by one."""
EXPERIMENT_PRESETS = ("small", "all")
"""What comparisons of offline methods run: BC-Safe and BC-All."""
