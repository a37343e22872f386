"""The world model: a recurrent state-space model with image, pose, reward, cost and continue heads."""

from safe_policy_core.world_model.config import WorldModelConfig
from safe_policy_core.world_model.model import Batch, WorldModel, to_batch
from safe_policy_core.world_model.rssm import LatentState, Rollout, Rssm

__all__ = ["Batch", "LatentState", "Rollout", "Rssm", "WorldModel", "WorldModelConfig", "to_batch"]
