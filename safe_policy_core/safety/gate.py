"""The safety gate: every command to the arm passes here, or does not pass.

A library without clock and without ROS. `now` is steady time in seconds, `clock` the ROS clock
in seconds (only stamps are compared with it). One thread at a time may call in.

It is put together from parts that can be read and tested alone: `commands` decides what may pass and whose turn
it is, the `guards` whether the arm may move at all, the `filters` how its target may move.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from safe_policy_core.geometry import Pose
from safe_policy_core.safety.commands import HARMLESS, POLICY, SOURCES, Arbiter, Command, refusal
from safe_policy_core.safety.filters.chain import FilterChain
from safe_policy_core.safety.gate_config import GateConfig
from safe_policy_core.safety.guards.camera import CameraGuard
from safe_policy_core.safety.guards.clock import ClockGuard
from safe_policy_core.safety.guards.cost import CostBudget
from safe_policy_core.safety.guards.following import FollowingGuard
from safe_policy_core.safety.guards.force import ForceGuard
from safe_policy_core.safety.guards.guard import Drive, Guard
from safe_policy_core.safety.guards.learned import LearnedGuard
from safe_policy_core.safety.guards.publishers import PublisherGuard
from safe_policy_core.safety.guards.supervisor import Phase, SupervisorGuard
from safe_policy_core.safety.measured import PoseGuard
from safe_policy_core.safety.motion import GATE_PERIOD

LONGEST_TICK = 2 * GATE_PERIOD
"""[s] A tick that comes later than this loses motion instead of catching up with a jump."""
WITHDRAWN = frozenset({"stale_state", "measured_invalid", "measured_wrong_frame", "measured_workspace",
                       "measured_tilt", "measured_jump", "measured_speed", "measured_keep_out", "two_publishers",
                       "force", "torque", "stale_wrench", "wrench_invalid", "not_following"})
"""After these nobody knows where the arm is or who else drives it, or the target pulls it into something: the
target is withdrawn, so that the arm's own watchdog lets go, instead of being held."""


class GateState(IntEnum):
    """As in GateStatus.msg."""

    DISARMED = 0
    ACTIVE = 1
    HOLD = 2
    FAULT = 3


@dataclass(frozen=True)
class Decision:
    """Outcome of one tick. target: commanded tool pose, None when nothing may reach the arm.

    hold: why motion that is asked for is held back, "" when none is.
    """

    state: GateState
    reason: str
    source: str
    target: Pose | None
    hold: str = ""


class SafetyGate:
    """DISARMED until `arm`; then ACTIVE while a fresh command moves the arm, else HOLD; FAULT latches.

    In ACTIVE and HOLD every anomaly becomes a FAULT. The target then runs out along a linear ramp of `stop_time`
    and stays; or, see WITHDRAWN, it brakes as hard as it may and is withdrawn, also when such a fault follows another.
    Only `arm` leaves FAULT.

    The guards are public: the shell tells each what it heard of the graph, and `tick` asks them all.
    """

    def __init__(self, config: GateConfig) -> None:
        self._config, self._times = config, config.times
        times = config.times
        self.pose = PoseGuard(config)
        self.force = ForceGuard(config.force, times.state_timeout)
        self.camera = CameraGuard(times.camera_hold, times.camera_timeout)
        self.supervisor = SupervisorGuard(times.heartbeat_hold, times.heartbeat_timeout)
        self.learned = LearnedGuard(config.learned)
        self.publishers = PublisherGuard()
        self.clock = ClockGuard(times.max_clock_step)
        self._following = FollowingGuard(times.max_settled_lead, times.settling_time)
        self.cost = CostBudget(config.learned.cost_budget)
        self._guards: tuple[Guard, ...] = (self.pose, self.publishers, self.clock, self.force, self.camera,
                                           self.supervisor, self.learned, self.cost, self._following)
        self._filters = FilterChain(config)
        self._arbiter = Arbiter(times)
        self._state = GateState.DISARMED
        self.reason = self.detail = ""
        """Code of the latched fault and one line about it, "" outside FAULT."""
        self.hold = ""
        """Why motion that is asked for is held back, as of the last tick; "" when none is."""
        self._source = ""
        self._ramp_velocity, self._ramp_start = np.zeros(6), -np.inf
        self._engaged = False  # a target is in force at the arm
        self._withdrawing = False
        self._last_tick: float | None = None
        self._armed_clock: float | None = None
        self._last_stamps: dict[str, float] = {}
        self._refused_at, self._refused_what = -np.inf, ""
        self._moving_at, self._moving_source = -np.inf, ""
        self._over_budget_at = -np.inf
        self._limits_seen: dict[str, None] = {}
        self.epoch = self.accepted = self.rejected = 0
        self.counts: Counter[str] = Counter()

    # Reading

    @property
    def state(self) -> GateState:
        return self._state

    @property
    def target(self) -> Pose | None:
        """Commanded tool pose, None before the first arming."""
        return self._filters.envelope.pose if self.epoch else None

    @property
    def velocity(self) -> np.ndarray:
        """(6,) of the target [m/s, rad/s]."""
        return self._filters.envelope.velocity

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
        if self.clock.stepped:  # this, and not the stamps that it makes look wrong, is what is the matter
            self._fault("clock_step", now, self.clock.detail)
        why = refusal(command, self._times, self._config.frame, clock, self._armed_clock,
                      self._last_stamps.get(source))
        if not why:
            self._last_stamps[source] = command.stamp
            # The watchdog first: a command that comes after a silence must not hide it.
            if self.armed and self._arbiter.select(now)[2]:
                self._fault("stale_command", now, f"{source} was silent while it moved the arm")
            if np.any(command.twist):
                self._moving_at, self._moving_source = now, source
            why = "" if self.armed else "not_armed"
        if not why and self._over_budget(source, command):
            self._arbiter.drop(source)
            self._over_budget_at = now
            why = "cost_budget"
        if why:
            self.rejected += 1
            self.counts[f"rejected.{source}.{why}"] += 1
            if why not in HARMLESS:
                self._refused_at, self._refused_what = now, f"{why} from {source}"
                self._fault(why, now, f"a command of {source}")
            return why
        self.accepted += 1
        self.counts[f"accepted.{source}"] += 1
        if not self._arbiter.put(source, command.twist, now):
            self.counts[f"outranked.{source}"] += 1
        return ""

    @property
    def newest_stamp(self) -> float:
        """Of the commands heard since start [s], 0 before the first."""
        return max(self._last_stamps.values(), default=0.0)

    def _over_budget(self, source: str, command: Command) -> bool:
        """The way home between episodes is scripted, and needed by teleoperation, which goes on."""
        return (source == POLICY and self.cost.exhausted and self.supervisor.phase != Phase.RESETTING
                and bool(np.any(command.twist)))

    def measurement(self, pose: Pose | None, frame: str, stamp: float, now: float) -> str:
        """A measured pose arrived; None when the message held no valid pose. Returns what is wrong with it."""
        if why := self.pose.put(pose, frame, stamp, now):
            self.counts[f"state.{why}"] += 1
        return why

    # The operator

    def arm(self, now: float, clock: float) -> tuple[bool, str]:
        """(success, one line). Refused with the reason while a cause for a fault lasts."""
        if self.armed:
            return True, "already armed"
        if cause := self._cause(now):
            self.counts["arm.refused"] += 1
            return False, f"not armed: {cause}"
        measured = self.pose.pose
        assert measured is not None  # a fresh pose is among the causes
        if not self._keeps_target():
            self._filters.envelope.reset(measured)
        self._arbiter.clear()
        for guard in self._guards:
            guard.begin(now)
        self._state, self.reason, self.detail, self._source = GateState.HOLD, "", "", ""
        self._armed_clock, self._last_tick, self._engaged, self._withdrawing = clock, now, True, False
        self.epoch += 1
        self.counts["arm.accepted"] += 1
        return True, f"armed, epoch {self.epoch}"

    def stop(self, now: float) -> None:
        """The operator's stop: latched, along the same ramp as a fault."""
        self.counts["stop"] += 1
        self._fault("operator_stop", now, "/safety_gate/stop was called")

    # The clock

    def tick(self, now: float) -> Decision:
        """One period: guards, arbitration, limits. Call it at 100 Hz."""
        elapsed = 0.0 if self._last_tick is None else now - self._last_tick
        self._last_tick = now
        dt = min(max(elapsed, 0.0), LONGEST_TICK)
        if elapsed > self._times.state_timeout:
            self._filters.envelope.halt()
        self.hold = ""
        if self.armed:
            self._source, twist, stale = self._arbiter.select(now)
            self._ask_guards(now, bool(twist.any()) or stale)
            if self.armed and stale:
                self._fault("stale_command", now, f"{self._source} fell silent while it moved the arm")
            if self.armed:
                moving = bool(twist.any()) and not self.hold
                self._state = GateState.ACTIVE if moving else GateState.HOLD
                share = self._arbiter.spend(self._source, dt) if moving else 0.0
                if moving and share < 1:
                    self.counts["limited.command_span"] += 1
                self._advance(twist * share if moving else self._way_back(now), dt)
        if self._state == GateState.FAULT and self._engaged:
            self._watch_stopped(now)
            self._run_out(now, dt)
        return Decision(self._state, self.reason, self._source,
                        self._filters.envelope.pose if self._engaged else None, self.hold)

    # Inside

    def _ask_guards(self, now: float, moving: bool) -> None:
        phase = self.supervisor.phase
        self._following.compare(self._filters.envelope.vector, self.pose.vector, self.velocity, now)
        drive = Drive(self._source, moving, moving and self._source == POLICY and phase != Phase.RESETTING,
                      phase == Phase.RUNNING)
        # All are asked in every tick, since each remembers what happened only until then.
        verdicts = [guard.check(now, drive) for guard in self._guards]
        for verdict in verdicts:
            if verdict.fault:
                self._fault(verdict.fault, now, verdict.detail)
                return
        held = [verdict.hold for verdict in verdicts if verdict.hold]
        if not held and now - self._over_budget_at < self._times.command_timeout:
            held = ["cost_budget"]
        if held:
            self.hold = held[0]
            self.counts[f"held.{self.hold}"] += 1

    def _way_back(self, now: float) -> np.ndarray:
        """(6,) by which a target moves that nobody moves: not at all, unless the arm leans on something."""
        back = np.zeros(6) if self.hold else self._following.way_back(now)
        if back.any():
            self.counts["let_go"] += 1
        return back

    def _fault(self, reason: str, now: float, detail: str) -> None:
        if not self.armed:
            return  # nothing moves; while the cause lasts, it bars arming
        self._state, self.reason, self.detail = GateState.FAULT, reason, detail
        self._ramp_velocity, self._ramp_start = self.velocity, now
        self._withdrawing = reason in WITHDRAWN
        self._arbiter.clear()
        self.counts[f"fault.{reason}"] += 1

    def _watch_stopped(self, now: float) -> None:
        """An arm that is lost after the gate stopped it may not find the old target when it comes back and go there."""
        still = Drive("", False, False, False)
        for guard in (self.pose, self.force, self.publishers):
            if (fault := guard.check(now, still).fault) and not self._withdrawing:
                self._withdrawing = True
                self.counts[f"withdrawn.{fault}"] += 1

    def _run_out(self, now: float, dt: float) -> None:
        """Brings the target to rest, wherever the arm is meanwhile."""
        left = 1 - (now - self._ramp_start) / self._times.stop_time
        share = 0.0 if self._withdrawing else min(max(left, 0.0), 1.0)
        if dt > 0 and self.velocity.any():
            self._filters.envelope.advance(self._ramp_velocity * share, dt)
        if left <= 0 and self._withdrawing:
            self._engaged = False

    def _advance(self, twist: np.ndarray, dt: float) -> None:
        measured = self.pose.pose
        if dt <= 0 or measured is None:
            return
        for reason in self._filters.advance(twist, dt, measured, self.force.wrench):
            if reason != "acceleration":  # every change of the command meets it: counted, but no news
                self._limits_seen[reason] = None
            self.counts[f"limited.{reason}"] += 1

    def _keeps_target(self) -> bool:
        """Whether a target is still in force, and close enough to the arm to go on from it without a jump."""
        if not self._engaged:
            return False
        lead = self._filters.envelope.vector - self.pose.vector
        return bool(np.linalg.norm(lead[:3]) <= self._config.limits.max_translation_lead
                    and np.linalg.norm(lead[3:]) <= self._config.limits.max_rotation_lead)

    def _cause(self, now: float) -> str:
        """Why arming would fault again at once, or ""."""
        for guard in self._guards:
            if cause := guard.cause(now):
                return cause
        if not self._keeps_target():
            # The target would begin outside its limits: at best it could not move, at worst it would hurry back.
            if self.pose.outside() > self._times.arming_margin:
                return f"measured_workspace: {self.pose.where()}; guide the arm back by hand"
            if self.pose.in_keep_out(self._config.envelope.keep_out_margin):
                return f"measured_keep_out: {self.pose.where()}; guide the arm back by hand"
        if now - self._refused_at < self._times.quiet_time:
            return f"{self._refused_what} {now - self._refused_at:.2f} s ago; repair the sender first"
        if now - self._moving_at < self._times.command_timeout:
            return f"moving_command: {self._moving_source} asks for motion already; let go first"
        if self._state == GateState.FAULT and now - self._ramp_start < self._times.stop_time:
            return "the arm is still stopping; again in a moment"
        return ""
