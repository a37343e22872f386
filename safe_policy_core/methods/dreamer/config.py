"""DreamerV3's settings, which SafeDreamer and Recovery RL share. Presets take sizes and data from FOSP's."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from safe_policy_core.data.virtual_obstacles import VirtualObstacles
from safe_policy_core.methods.fosp.config import PRESETS as FOSP_PRESETS
from safe_policy_core.vision import ToolViewConfig
from safe_policy_core.world_model import WorldModelConfig


@dataclass(frozen=True)
class DreamerConfig:
    """Trains on two CPU cores by default."""

    world_model: WorldModelConfig = field(default_factory=WorldModelConfig)
    tool_view: ToolViewConfig = field(default_factory=ToolViewConfig)
    """The picture around the tool beside the world model's state, as for FOSP."""
    virtual_obstacles: VirtualObstacles = field(default_factory=VirtualObstacles)
    """Obstacles added to recorded episodes, as for FOSP; off by default."""
    units: int = 192
    """Hidden units of actor and critics."""
    layers: int = 2
    """Hidden layers of the same."""

    horizon: int = 5
    """Imagined steps H."""
    imagination_starts: int = 128
    """States of a batch from which rollouts start, drawn anew at each step; 0 takes all."""
    discount: float = 0.97
    """Gamma. DreamerV3's 0.997 is for episodes of 1000 steps."""
    blend: float = 0.95
    """Lambda of the returns."""
    actor_gradient: Literal["dynamics", "reinforce"] = "dynamics"
    """"dynamics" differentiates the returns through the world model (DreamerV3 of 2023 for continuous actions, and
    SafeDreamer); "reinforce" is the score function of FOSP's Appendix F, and the only one that learns of what the
    tool view sees, whose pictures have no gradient in imagination."""
    entropy: float = 3e-4
    """Eta."""
    two_hot_critics: bool = False
    """Categorical symlog critics with cross entropy (DreamerV3) instead of squared errors."""
    slow_rate: float = 0.02
    """Rate at which the slow copies of the critics follow."""
    slow_scale: float = 1.0
    """Weight of the critics' pull towards their slow copies."""

    ensemble: int = 5
    """Priors that are compared offline; 0 takes no part of the reward for their disagreement."""
    uncertainty: float = 0.01
    """Alpha of FOSP's Appendix F: reward taken per nat of disagreement, offline. Not given in the paper."""

    actor_learning_rate: float = 3e-4
    critic_learning_rate: float = 3e-4
    gradient_clip: float = 100.0


Config = TypeVar("Config", bound=DreamerConfig)
_SHARED = ("world_model", "tool_view", "virtual_obstacles", "units", "layers", "horizon", "imagination_starts",
           "discount", "two_hot_critics", "slow_rate", "slow_scale", "entropy", "actor_learning_rate",
           "critic_learning_rate", "gradient_clip")


def like_fosp(config: Config, name: str, **changes: Any) -> Config:
    """`config` with the sizes, data and rates of FOSP's preset `name`, and further changes."""
    reference = FOSP_PRESETS[name]()
    return replace(config, **{field: getattr(reference, field) for field in _SHARED}, **changes)


PRESETS = {"small": lambda: like_fosp(DreamerConfig(), "small"),
           "tabletop": lambda: like_fosp(DreamerConfig(), "tabletop", actor_gradient="reinforce"),
           "full": lambda: like_fosp(DreamerConfig(), "full")}
"""Name -> function that makes the configuration."""
