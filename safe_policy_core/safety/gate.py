"""The safety gate: every command to the arm passes here, or does not pass.

A library without clock and without ROS. `now` is steady time in seconds, `clock` the ROS clock
in seconds (only stamps are compared with it). One thread at a time may call in.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from safe_policy_core.geometry import Pose, inverse, multiply, rotation_vector_from_quaternion
from safe_policy_core.safety.commands import HARMLESS, SOURCES, Arbiter, Command, refusal
from safe_policy_core.safety.gate_config import GateConfig
from safe_policy_core.safety.monitor import PoseMonitor
from safe_policy_core.safety.motion import GATE_PERIOD, MotionIntegrator

LONGEST_TICK = 2 * GATE_PERIOD
"""[s] A tick that comes later than this loses motion instead of catching up with a jump."""
MEASURED_FAULTS = frozenset({"stale_state", "measured_invalid", "measured_wrong_frame", "measured_workspace",
                             "measured_tilt", "measured_jump", "two_publishers"})
"""After these nobody knows where the arm is or who else drives it: the target is withdrawn, so that
the arm's own watchdog stops it, instead of being held."""


class GateState(IntEnum):
    """As in GateStatus.msg."""

    DISARMED = 0
    ACTIVE = 1
    HOLD = 2
    FAULT = 3


@dataclass(frozen=True)
class Decision:
    """Outcome of one tick. target: commanded tool pose, None when nothing may reach the arm."""

    state: GateState
    reason: str
    source: str
    target: Pose | None


class SafetyGate:
    """DISARMED until `arm`; then ACTIVE while a fresh command moves the arm, else HOLD; FAULT latches.

    In ACTIVE and HOLD every anomaly becomes a FAULT. The target then runs out along a linear ramp
    of `stop_time` and stays (or is withdrawn, for MEASURED_FAULTS). Only `arm` leaves FAULT.
    """

    def __init__(self, config: GateConfig) -> None:
        self._config = config
        self._times = config.times
        self._state = GateState.DISARMED
        self._reason = ""
        self._source = ""
        self._integrator = MotionIntegrator(config.limits)
        self._monitor = PoseMonitor(config)
        self._arbiter = Arbiter(config.times)
        self._velocity = np.zeros(6)
        self._ramp_velocity, self._ramp_start = np.zeros(6), -np.inf
        self._engaged = False  # a target is in force at the arm
        self._last_tick: float | None = None
        self._armed_clock: float | None = None
        self._last_stamps: dict[str, float] = {}
        self._refused_at, self._refused_what = -np.inf, ""
        self._moving_at, self._moving_source = -np.inf, ""
        self._publishers: dict[str, int] = {}
        self._limits_seen: dict[str, None] = {}
        self.epoch = 0
        self.accepted = 0
        self.rejected = 0
        self.counts: Counter[str] = Counter()

    # Reading

    @property
    def state(self) -> GateState:
        return self._state

    @property
    def reason(self) -> str:
        """Code of the latched fault, "" outside FAULT."""
        return self._reason

    @property
    def source(self) -> str:
        return self._source

    @property
    def target(self) -> Pose | None:
        """Commanded tool pose, None before the first arming."""
        return self._integrator.target if self.epoch else None

    @property
    def measured(self) -> Pose | None:
        return self._monitor.pose

    @property
    def armed(self) -> bool:
        return self._state in (GateState.ACTIVE, GateState.HOLD)

    def take_limits(self) -> list[str]:
        """What changed commands since the last call."""
        seen, self._limits_seen = list(self._limits_seen), {}
        return seen

    # Inputs

    def command(self, source: str, command: Command, now: float, clock: float) -> str:
        """A command of `source` arrived. Returns why it was refused, or ""."""
        if source not in SOURCES:
            raise ValueError(f"source: expected one of {', '.join(SOURCES)}, got {source!r}")
        why = refusal(command, self._times, self._config.frame, clock, self._armed_clock,
                      self._last_stamps.get(source))
        if not why:
            self._last_stamps[source] = command.stamp
            # The watchdog first: a command that comes after a silence must not hide it.
            if self.armed and self._arbiter.select(now)[2]:
                self._fault("stale_command", now)
            if np.any(command.twist):
                self._moving_at, self._moving_source = now, source
            why = "" if self.armed else "not_armed"
        if why:
            self.rejected += 1
            self.counts[f"rejected.{source}.{why}"] += 1
            if why not in HARMLESS:
                self._refused_at, self._refused_what = now, f"{why} from {source}"
                self._fault(why, now)
            return why
        self.accepted += 1
        self.counts[f"accepted.{source}"] += 1
        if not self._arbiter.put(source, command.twist, now):
            self.counts[f"outranked.{source}"] += 1
        return ""

    def measurement(self, pose: Pose | None, frame: str, stamp: float, now: float) -> str:
        """A measured pose arrived; None when the message held no valid pose. Returns what is wrong with it."""
        # The watchdog first: a pose that comes after a gap must not hide the gap.
        if self.armed and not self._monitor.fresh(now):
            self._fault("stale_state", now)
        why = self._monitor.put(pose, frame, stamp, now)
        if why:
            self.counts[f"state.{why}"] += 1
            if why != "measured_repeated":
                self._fault(why, now)
        return why

    def publishers(self, topic: str, count: int, now: float) -> None:
        """How many publishers `topic` has. Two on one channel cannot be told apart, so neither is obeyed."""
        self._publishers[topic] = count
        if count > 1:
            self._fault("two_publishers", now)

    # The operator

    def arm(self, now: float, clock: float) -> tuple[bool, str]:
        """(success, one line). Refused with the reason while a cause for a fault lasts."""
        if self.armed:
            return True, "already armed"
        cause = self._cause(now)
        if cause:
            self.counts["arm.refused"] += 1
            return False, f"not armed: {cause}"
        measured = self._monitor.pose
        assert measured is not None  # a fresh pose is among the causes
        if not self._keeps_target(measured):
            self._integrator.reset(measured)
        self._arbiter.clear()
        self._last_stamps.clear()
        self._velocity = np.zeros(6)
        self._state, self._reason, self._source = GateState.HOLD, "", ""
        self._armed_clock, self._last_tick, self._engaged = clock, now, True
        self.epoch += 1
        self.counts["arm.accepted"] += 1
        return True, f"armed, epoch {self.epoch}"

    def stop(self, now: float) -> None:
        """The operator's stop: latched, along the same ramp as a fault."""
        self.counts["stop"] += 1
        self._fault("operator_stop", now)

    # The clock

    def tick(self, now: float) -> Decision:
        """One period: watchdogs, arbitration, limits. Call it at 100 Hz."""
        elapsed = 0.0 if self._last_tick is None else now - self._last_tick
        self._last_tick = now
        dt = min(max(elapsed, 0.0), LONGEST_TICK)
        if self.armed and not self._monitor.fresh(now):
            self._fault("stale_state", now)
        if self.armed:
            source, twist, stale = self._arbiter.select(now)
            if stale:
                self._source = source
                self._fault("stale_command", now)
            else:
                self._source = source
                self._state = GateState.ACTIVE if twist.any() else GateState.HOLD
                self._advance(twist, dt)
        if self._state == GateState.FAULT and self._engaged:
            self._run_out(now, dt)
        return Decision(self._state, self._reason, self._source,
                        self._integrator.target if self._engaged else None)

    # Inside

    def _fault(self, reason: str, now: float) -> None:
        if not self.armed:
            return  # nothing moves; while the cause lasts, it bars arming
        self._state, self._reason = GateState.FAULT, reason
        self._ramp_velocity, self._ramp_start = self._velocity, now
        self._arbiter.clear()
        self.counts[f"fault.{reason}"] += 1

    def _run_out(self, now: float, dt: float) -> None:
        """Ramps the target to rest, then withdraws it when its footing is gone."""
        left = 1 - (now - self._ramp_start) / self._times.stop_time
        if 0 < left <= 1 and self._ramp_velocity.any():
            self._advance(self._ramp_velocity * left, dt)
        elif left <= 0:
            self._velocity = np.zeros(6)
            if self._reason in MEASURED_FAULTS:
                self._engaged = False

    def _advance(self, twist: np.ndarray, dt: float) -> None:
        """Moves the target. Beyond the integrator's limits, bounds the change that they cause themselves:
        a lead limit follows the measured pose, which may be thrown about faster than the arm may move."""
        measured, limits = self._monitor.pose, self._config.limits
        if dt <= 0 or measured is None:
            return
        before = self._integrator.target
        reasons = self._integrator.advance(twist, dt, measured)
        after = self._integrator.target
        step = after.position - before.position
        distance, longest = float(np.linalg.norm(step)), limits.max_translation_speed * dt
        turn = rotation_vector_from_quaternion(multiply(after.quaternion, inverse(before.quaternion)))
        angle, widest = float(np.linalg.norm(turn)), limits.max_rotation_speed * dt
        if distance > longest * (1 + 1e-9) or angle > widest * (1 + 1e-9):
            nominal = np.asarray(limits.nominal_quaternion)
            old, new = before.to_vector(nominal), after.to_vector(nominal)
            change = new - old
            if distance > longest:
                change[:3] *= longest / distance
            if angle > widest:
                # A change of the rotation vector is never smaller than the angle it turns by.
                change[3:] *= widest / max(float(np.linalg.norm(change[3:])), angle)
            self._integrator.reset(Pose.from_vector(old + change, nominal))
            after = self._integrator.target
            step = after.position - before.position
            turn = rotation_vector_from_quaternion(multiply(after.quaternion, inverse(before.quaternion)))
        self._velocity = np.concatenate([step, turn]) / dt
        for reason in reasons:
            self._limits_seen[reason] = None
            self.counts[f"limited.{reason}"] += 1

    def _keeps_target(self, measured: Pose) -> bool:
        """Whether a target is still in force, and close enough to the arm to go on from it without a jump."""
        if not self._engaged:
            return False
        nominal = np.asarray(self._config.limits.nominal_quaternion)
        lead = self._integrator.target_vector - measured.to_vector(nominal)
        return bool(np.linalg.norm(lead[:3]) <= self._config.limits.max_translation_lead
                    and np.linalg.norm(lead[3:]) <= self._config.limits.max_rotation_lead)

    def _cause(self, now: float) -> str:
        """Why arming would fault again at once, or ""."""
        if not self._monitor.fresh(now):
            age = self._monitor.age(now)
            ago = f"for {age:.2f} s" if np.isfinite(age) else "so far"
            return f"stale_state: no measured pose {ago}; is the arm's node running?"
        measured = self._monitor.pose
        if measured and not self._keeps_target(measured) and self._monitor.outside() > self._times.arming_margin:
            # The target would begin outside the box and hurry into it: motion that nobody asked for.
            return f"measured_workspace: {self._monitor.where()}; guide the arm back by hand"
        if fault := self._monitor.position_fault():
            return f"{fault}: {self._monitor.where()}; guide the arm back by hand"
        for topic, count in self._publishers.items():
            if count > 1:
                return f"two_publishers: {topic} has {count}; stop all but one"
        if now - self._refused_at < self._times.quiet_time:
            return f"{self._refused_what} {now - self._refused_at:.2f} s ago; repair the sender first"
        if now - self._moving_at < self._times.command_timeout:
            return f"moving_command: {self._moving_source} asks for motion already; let go first"
        if self._state == GateState.FAULT and now - self._ramp_start < self._times.stop_time:
            return "the arm is still stopping; again in a moment"
        return ""
