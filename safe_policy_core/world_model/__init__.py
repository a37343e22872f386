"""The world model: a recurrent state-space model with image, pose, reward, cost and continue heads."""

from safe_policy_core.world_model.config import WorldModelConfig
from safe_policy_core.world_model.model import Batch, WorldModel, to_batch
from safe_policy_core.world_model.rssm import LatentState, Rollout, Rssm
from safe_policy_core.world_model.steps import ImaginedSteps, RealSteps, imagine, real_steps

__all__ = ["Batch", "ImaginedSteps", "LatentState", "RealSteps", "Rollout", "Rssm", "WorldModel", "WorldModelConfig",
           "imagine", "real_steps", "to_batch"]
