"""Safety-Gymnasium behind the project's own environment interface."""

from sim.safety_gymnasium.environment import SafetyGymnasiumEnv
from sim.safety_gymnasium.front_back import FrontBackEnv

__all__ = ["FrontBackEnv", "SafetyGymnasiumEnv"]
