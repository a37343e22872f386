"""Helper process of test_safe_reach_server: follows actions with franky's impedance tracker, as the robot's node does.

Reads a request (JSON) on stdin, prints the measured pose vectors, one per control step. Its clock is
the simulation's own, so that a busy machine does not change what is measured.
"""

import json
import sys

import franky
import numpy as np

from safe_policy_core.geometry import Pose
from safe_policy_core.safety.motion import CONTROL_PERIOD, GATE_PERIOD, MotionIntegrator
from sim.safe_reach import control, task
from sim.safe_reach.link import SceneLink

NOMINAL = np.array(task.NOMINAL_QUATERNION)
TWIST = np.repeat([task.MAX_TRANSLATION_STEP, task.MAX_ROTATION_STEP], 3) / CONTROL_PERIOD
GATE_STEPS = round(CONTROL_PERIOD / GATE_PERIOD)
SETTLE_STEPS = 150
"""Gate periods after homing."""


def main() -> None:
    request = json.load(sys.stdin)
    link = SceneLink(request["link"])
    robot = franky.Robot(request["arm"], realtime_config=franky.RealtimeConfig.Ignore)

    def measured() -> Pose:
        pose = robot.current_pose.end_effector_pose
        return Pose(np.array(pose.translation), np.array(pose.quaternion))

    gains = franky.CartesianImpedanceGains.isotropic(
        control.TRANSLATIONAL_STIFFNESS, control.ROTATIONAL_STIFFNESS,
        control.TRANSLATIONAL_DAMPING, control.ROTATIONAL_DAMPING)
    integrator = MotionIntegrator(task.MOTION_LIMITS)
    integrator.reset(measured())
    trace = []
    clips = {name: np.full(3, value) for name, value in zip(("translational_error_clip", "rotational_error_clip"),
                                                            request["max_error"], strict=True)}
    with franky.CartesianImpedanceTracker(robot, gains=gains, period=0.002, **clips) as tracker:
        def follow(twists) -> None:
            """One gate period per 10 ms of simulated time; a late process catches up."""
            start = link.snapshot().steps
            for done, twist in enumerate(twists):
                while tracker.tick() is not None and link.snapshot().steps < start + done * 10:
                    pass
                integrator.advance(twist(), GATE_PERIOD, measured())
                target = integrator.target
                tracker.set_target(franky.Affine(target.position, target.quaternion))

        if request["start"]:
            home = Pose(np.array(request["start"][:3]), np.array(request["start"][3:])).to_vector(NOMINAL)
            follow([lambda: np.clip(4 * (home - integrator.target_vector), -0.1, 0.1)] * 300
                   + [lambda: np.zeros(6)] * SETTLE_STEPS)
        for action in request["actions"]:
            trace.append(measured().to_vector(NOMINAL).tolist())
            follow([lambda action=action: np.array(action) * TWIST] * GATE_STEPS)
        trace.append(measured().to_vector(NOMINAL).tolist())
    robot.stop()
    sys.stdout.write(json.dumps(trace) + "\n")


if __name__ == "__main__":
    main()
