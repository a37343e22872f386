"""What a policy sees of an episode: the camera and the pose as they are, or SafeReach's states made of them.

A policy on states (DT, CDT, QPT, SAS, DSPO's of states) has to be told where things stand. The simulated scene tells
it; a table that a person arranged does not, and the policy is refused there.
"""

from __future__ import annotations

from typing import Any, Protocol

from safe_policy_core.errors import CheckpointError
from safe_policy_core.interfaces import Observation, Specs
from sim.safe_reach.state import STATE_SPECS, StateView, timed_reward
from sim.safe_reach.task import Layout


class PolicyView(Protocol):
    """How one policy sees episodes."""

    def begin(self, layout: dict[str, Any]) -> None:
        """An episode with this layout, {} where nobody knows it."""
        ...

    def expected(self, layout: dict[str, Any], seed: int) -> Observation | None:
        """The first observation of the episode to come, before the arm is there; None where nobody can tell."""
        ...

    def observation(self, seen: Observation) -> Observation:
        """From the environment's."""
        ...

    def reward(self, reward: float) -> float:
        """A step's, as the policy learned it, from the environment's."""
        ...


class AsSeen:
    """Pictures and poses, as the camera and the arm bring them."""

    def begin(self, layout: dict[str, Any]) -> None:
        """Looks for itself."""

    def expected(self, layout: dict[str, Any], seed: int) -> Observation | None:
        return None

    def observation(self, seen: Observation) -> Observation:
        return seen

    def reward(self, reward: float) -> float:
        return reward


class AsStates:
    """The vector of `sim.safe_reach.state.StateReachEnv`, from the layout and the measured pose, and its reward."""

    def begin(self, layout: dict[str, Any]) -> None:
        """Raises `ConfigurationError` for a layout without a target."""
        self._view = StateView(Layout.from_json(layout) if layout else Layout())

    def expected(self, layout: dict[str, Any], seed: int) -> Observation | None:
        return StateView(Layout.from_json(layout)).first(seed) if layout else None

    def observation(self, seen: Observation) -> Observation:
        return self._view.observation(seen["pose"])

    def reward(self, reward: float) -> float:
        return timed_reward(reward)


def view_for(wanted: Specs, recorded: Specs, scene: str, name: str) -> PolicyView:
    """How a policy of specs `wanted` can see what the graph, of specs `recorded`, brings.

    scene: who arranges the table. Raises `CheckpointError` naming `name` where it cannot.
    """
    if not wanted.difference(STATE_SPECS):
        if scene != "service":
            raise CheckpointError(f"{name}: made for states, which a scene of kind {scene!r} does not tell; expected a "
                                  "policy on pictures, or scene: service (the simulated arm)")
        return AsStates()
    if difference := wanted.difference(recorded):
        raise CheckpointError(f"{name}: made for other specs: {difference}")
    return AsSeen()
