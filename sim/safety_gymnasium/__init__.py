"""Safety-Gymnasium behind the project's own environment interface."""

from sim.safety_gymnasium.environment import SafetyGymnasiumEnv

__all__ = ["SafetyGymnasiumEnv"]
