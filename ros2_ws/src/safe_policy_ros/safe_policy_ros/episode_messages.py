"""What an episode is called and how its messages are filled."""

from __future__ import annotations

import json
import math
import uuid
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from safe_policy_interfaces.msg import EpisodeState, Monitor, Step

from safe_policy_core.interfaces import ActionDecision
from safe_policy_ros.messages import BASE_FRAME, CAMERA_FRAME, ns_to_stamp


@dataclass(frozen=True)
class EpisodePlan:
    """What the next episodes are. directory: where the recorder writes. metadata: kept with the episode."""

    task: str
    operator_name: str = ""
    directory: str = ""
    source: str = "policy"
    metadata: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    episode_id: str = ""

    def begin(self, seed: int) -> EpisodePlan:
        """The same plan with a seed and a name that no other episode has."""
        return replace(self, seed=seed, episode_id=f"{self.task}-{self.source}-{seed}-{uuid.uuid4().hex[:8]}")


def episode_state(plan: EpisodePlan, phase: int, time_ns: int, metadata: dict[str, Any]) -> EpisodeState:
    state = EpisodeState(phase=phase, episode_id=plan.episode_id, task=plan.task, seed=plan.seed,
                         operator_name=plan.operator_name, directory=plan.directory,
                         metadata_json=json.dumps(metadata) if metadata else "")
    state.header.stamp, state.header.frame_id = ns_to_stamp(time_ns), BASE_FRAME
    return state


def step_message(index: int, before: tuple[int, np.ndarray], after: tuple[int, np.ndarray], action: np.ndarray,
                 decision: ActionDecision, info: dict[str, Any], reward: float, cost: float, terminated: bool,
                 truncated: bool) -> Step:
    """before, after: (stamp of the image [ns], pose (6,)) around the step. Estimates nobody made are NaN."""
    step = Step(index=index, reward=reward, cost=cost, terminated=terminated, truncated=truncated,
                intervention=bool(info["intervention"]), filter_reason=info["filter_reason"],
                **_estimates(decision))
    step.header.stamp, step.header.frame_id = ns_to_stamp(before[0]), CAMERA_FRAME
    step.next_stamp = ns_to_stamp(after[0])
    for name, value in (("pose", before[1]), ("next_pose", after[1]), ("requested_action", action),
                        ("executed_action", info["executed_action"]), ("human_action", info["human_action"])):
        setattr(step, name, np.asarray(value, np.float32))
    return step


def monitor_message(decision: ActionDecision) -> Monitor | None:
    """Without a stamp yet; None for a policy that estimates nothing."""
    if decision.value is decision.cost_value is decision.violation_probability is None:
        return None
    return Monitor(**_estimates(decision))


def _estimates(decision: ActionDecision) -> dict[str, Any]:
    def number(value: float | None) -> float:
        return math.nan if value is None else float(value)

    return {"value": number(decision.value), "cost_value": number(decision.cost_value),
            "violation_probability": number(decision.violation_probability), "chosen_policy": decision.chosen_policy}
