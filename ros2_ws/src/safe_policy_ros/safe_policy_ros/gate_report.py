"""What the gate tells the others: its status message, and its health once a second."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from safe_policy_interfaces.msg import GateStatus

from safe_policy_core.safety.gate import Decision, GateState, SafetyGate
from safe_policy_ros.messages import ns_to_stamp, pose_to_msg


@dataclass
class TickRecord:
    """How punctual the ticks were since the last report, and how long they took. Times [s].

    passing: from the receipt of each command to the target that followed.
    """

    count: int = 0
    worst: float = 0.0
    total: float = 0.0
    working: float = 0.0
    passing: list[float] = field(default_factory=list)

    def add(self, late: float, working: float) -> None:
        self.count += 1
        self.worst = max(self.worst, late)
        self.total += max(late, 0.0)
        self.working += working

    def latency(self) -> dict[str, str]:
        """Of commands, for the diagnostics; nothing without a command."""
        if not self.passing:
            return {}
        return {"command_latency_median_ms": f"{1e3 * statistics.median(self.passing):.3f}",
                "command_latency_max_ms": f"{1e3 * max(self.passing):.3f}"}


def status_message(gate: SafetyGate, decision: Decision, now_ns: int, frame: str) -> GateStatus:
    message = GateStatus(state=int(decision.state), reason=decision.reason, source=decision.source,
                         hold=decision.hold, limits=gate.take_limits(), epoch=gate.epoch, accepted=gate.accepted,
                         rejected=gate.rejected, cost_spent=gate.cost.spent, cost_budget=gate.cost.budget)
    message.header.stamp, message.header.frame_id = ns_to_stamp(now_ns), frame
    message.command_stamp = ns_to_stamp(round(gate.newest_stamp * 1e9))
    if gate.target is not None:
        message.target = pose_to_msg(gate.target)
    if gate.pose.pose is not None:
        message.measured = pose_to_msg(gate.pose.pose)
    return message


def diagnostics(gate: SafetyGate, record: TickRecord, now_ns: int) -> DiagnosticArray:
    """Every decision since start, by reason, and the punctuality of the ticks since the last report."""
    level = {GateState.FAULT: DiagnosticStatus.ERROR, GateState.DISARMED: DiagnosticStatus.WARN}.get(
        gate.state, DiagnosticStatus.OK)
    values = {"state": gate.state.name, "reason": gate.reason, "detail": gate.detail, "hold": gate.hold,
              "epoch": gate.epoch, "accepted": gate.accepted, "rejected": gate.rejected,
              "cost_spent": f"{gate.cost.spent:g}", "cost_budget": f"{gate.cost.budget:g}",
              "episode": gate.supervisor.phase.name, "repeated_frames": gate.camera.repeated,
              "ticks": record.count, "tick_lateness_mean_ms": f"{1e3 * record.total / max(record.count, 1):.3f}",
              "tick_lateness_max_ms": f"{1e3 * record.worst:.3f}",
              "tick_duration_mean_ms": f"{1e3 * record.working / max(record.count, 1):.3f}",
              **record.latency(), **dict(sorted(gate.counts.items()))}
    what = f"FAULT {gate.reason}: {gate.detail}" if gate.reason else gate.state.name
    status = DiagnosticStatus(level=level, name="safety_gate", hardware_id="", message=what,
                              values=[KeyValue(key=key, value=str(value)) for key, value in values.items()])
    message = DiagnosticArray(status=[status])
    message.header.stamp = ns_to_stamp(now_ns)
    return message
