"""Whether the policy can see."""

from __future__ import annotations

from safe_policy_core.safety.guards.guard import CLEAR, Drive, Silence, Verdict

RECENT = 0.3
"""[s]"""


class CameraGuard:
    """Frames must come, and each must be a new one, while a policy moves the arm, and for RECENT after it did: a
    policy that stops by itself when it sees nothing more is not told so by luck.

    A frame that repeats the one before, by the camera's own word, its number or its stamp, shows nothing
    of the present: it counts as none.
    """

    def __init__(self, hold_after: float, fault_after: float) -> None:
        self._fresh = Silence(hold_after, fault_after)
        self._any = Silence(hold_after, fault_after)
        self._timeout = fault_after
        self._sequence, self._stamp = -1, float("-inf")
        self._drove = float("-inf")
        self.repeated = 0

    def frame(self, stamp: float, sequence: int, repeated: bool, now: float) -> None:
        """A frame arrived. stamp: of its capture [s]; sequence: its number."""
        # Number and stamp may start again only after a gap: then the camera or its node was restarted.
        again = self._any.age(now) < self._timeout and (sequence <= self._sequence or stamp <= self._stamp)
        self._any.heard(now)
        if repeated or again:
            self.repeated += 1
            return
        self._sequence, self._stamp = sequence, stamp
        self._fresh.heard(now)

    def check(self, now: float, drive: Drive) -> Verdict:
        driving = drive.source == "policy" and drive.moving
        if driving:
            self._drove = now
        fault, hold = self._fresh.check(now, now - self._drove < RECENT)
        if not hold and not fault:
            return CLEAR
        age = self._fresh.age(now)
        what = "camera_frozen" if self._any.age(now) < age else "camera_silent"
        return Verdict(what, f"no new frame for {age:.2f} s", "") if fault else Verdict(
            hold=what if driving else "")

    def cause(self, now: float) -> str:
        return ""  # teleoperation needs no camera; a policy is held until it sees

    def begin(self, now: float) -> None:
        self._drove = float("-inf")
        self._fresh.check(now, False)
