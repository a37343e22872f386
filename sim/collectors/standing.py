"""Finds the Humanoid's gaits: it stands, by linear quadratic regulators about a pose in which it is at rest.

No search over policies found one that stands (results/README.md). Here the pose is solved for, in which the body's
weight is where its feet are and the motors hold it by themselves; around it, what a control step does to the 44 numbers
that matter (not where on the ground it is) is measured by finite differences in MuJoCo, and SciPy solves Riccati's
equation.

    python -m sim.collectors.standing
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import mujoco
import numpy as np
import tyro
from scipy.linalg import solve_discrete_are
from scipy.optimize import least_squares
from tqdm import tqdm

from sim.collectors.gait import FILE, LinearPolicy, write_gaits
from sim.collectors.tasks import find_task
from sim.safety_gymnasium import SafetyGymnasiumEnv

DIFFERENCE = 1e-5
"""Of the finite differences [rad, m, and by the second; share of an action]."""
TILT_WEIGHT, JOINT_WEIGHT, BODY_SPEED_WEIGHT, JOINT_SPEED_WEIGHT = 10.0, 1.0, 1.0, 0.01
"""Of the squares of what is off: height and tilt; joints; speeds of the body; of joints."""
RATED = 8
"""Episodes, from seeds of their own, of which a gait's return and cost are the mean."""
FIRST_RATED = 1_000_000
_ROOT, _GROUND = 6, 2
"""Degrees of freedom of the body as a whole; those of them that say where on the ground it is."""


@dataclass
class Standing:
    """Finds gaits of HumanoidVelocity and writes them to `out`, from the steadiest on."""

    bends: tuple[float, ...] = (0.0, 0.0, 0.0, -0.02, -0.02, -0.05)
    """Of the knees [rad]: straight, on the joint's stop, or bent, which is harder to hold."""

    efforts: tuple[float, ...] = (10.0, 100.0, 1000.0, 10.0, 1000.0, 1000.0)
    """Weights of the squares of the motors' deviation, one for each bend: with more it pushes less, and falls."""

    out: Path = Path(__file__).parent / FILE

    def run(self) -> list[LinearPolicy]:
        """Finds, rates and writes them."""
        task = find_task("HumanoidVelocity")
        env = SafetyGymnasiumEnv(task.env_id)
        pairs = tqdm(list(zip(self.bends, self.efforts, strict=True)), unit="gait")
        model, frames = env.simulation.model, env.simulation.frame_skip
        gaits = [_rated(env, Balance(model, bend, frames).policy(effort), task.horizon) for bend, effort in pairs]
        write_gaits(self.out, env.env_id, gaits)
        env.close()
        return gaits


class Balance:
    """A pose at rest with knees at `bend` [rad], and what happens near to it in a control step of `frames`.

    pose: (nq,). action: (nu,) in units of the motors' bounds, which holds it. change, effect: what deviations of the
    state (positions and speeds, without the two of the place on the ground) and of the action do to the next state.
    """

    def __init__(self, model: mujoco.MjModel, bend: float, frames: int) -> None:
        self.model, self._data, self._frames = model, mujoco.MjData(model), frames
        self._bounds = model.actuator_ctrlrange[:, 1]
        start = [1.25, 0.0, 0.0]  # feet in the ground: from above it no force tells how far it is
        found = least_squares(lambda free: self._unsupported(self._pose(*free, bend), free[1]), start)
        self.pose = self._pose(*found.x, bend)
        joints = model.jnt_dofadr[model.actuator_trnid[:, 0]]
        self.action = self._forces(self.pose)[joints] / model.actuator_gear[:, 0] / self._bounds
        self.change, self.effect = self._differences()

    def policy(self, effort: float) -> LinearPolicy:
        """Of the first numbers of an observation: height, quaternion and joints, then all speeds."""
        speeds = self.model.nv
        weights = np.full(2 * speeds, JOINT_SPEED_WEIGHT)
        weights[:_ROOT], weights[_ROOT:speeds] = TILT_WEIGHT, JOINT_WEIGHT
        weights[speeds:speeds + _ROOT] = BODY_SPEED_WEIGHT
        cost = effort * np.diag(self._bounds**2)
        value = solve_discrete_are(self.change, self.effect, np.diag(weights[_GROUND:]), cost)
        gain = np.linalg.solve(cost + self.effect.T @ value @ self.effect, self.effect.T @ value @ self.change)
        # A small turn from the pose's quaternion q to p is twice the vector part of conj(q) p.
        w, x, y, z = self.pose[3:7]
        turn = 2 * np.array([[-x, w, z, -y], [-y, -z, w, x], [-z, y, -x, w]])
        height, turns, rest = np.split(gain, [1, 4], axis=1)
        mean = np.concatenate([self.pose[_GROUND:], np.zeros(speeds)])
        return LinearPolicy(np.column_stack([-height, -turns @ turn, -rest, self.action]), mean, np.ones(len(mean)))

    def _pose(self, height: float, pitch: float, hip: float, bend: float) -> np.ndarray:
        pose = self.model.qpos0.copy()
        pose[:7] = 0, 0, height, np.cos(pitch / 2), 0, np.sin(pitch / 2), 0
        for side in ("right", "left"):
            pose[self.model.joint(f"{side}_hip_y").qposadr] = hip
            pose[self.model.joint(f"{side}_knee").qposadr] = bend
        return pose

    def _forces(self, pose: np.ndarray) -> np.ndarray:
        """(nv,) that would have to come from somewhere for the pose to rest, beside gravity and the ground."""
        mujoco.mj_resetData(self.model, self._data)
        self._data.qpos[:] = pose
        mujoco.mj_inverse(self.model, self._data)
        return self._data.qfrc_inverse.copy()

    def _unsupported(self, pose: np.ndarray, pitch: float) -> np.ndarray:
        """What nothing can push: the body as a whole, forwards, up and in pitch; a little, the joints and the pitch."""
        forces = self._forces(pose)
        return np.concatenate([forces[[0, 2, 4]] / 100, 2e-4 * forces[_ROOT:], [0.1 * pitch]])

    def _differences(self) -> tuple[np.ndarray, np.ndarray]:
        states, actions = 2 * self.model.nv, self.model.nu
        columns = []
        for deviation in DIFFERENCE * np.eye(states + actions):
            ahead, behind = self._step(deviation), self._step(-deviation)
            columns.append((ahead - behind) / (2 * DIFFERENCE))
        found = np.stack(columns, 1)[_GROUND:]
        return found[:, _GROUND:states], found[:, states:]

    def _step(self, deviation: np.ndarray) -> np.ndarray:
        """(2 nv + nu,) of positions, speeds and action before -> (2 nv,) of positions and speeds after."""
        model, data, speeds = self.model, self._data, self.model.nv
        mujoco.mj_resetData(model, data)
        data.qpos[:] = self.pose
        mujoco.mj_integratePos(model, data.qpos, deviation[:speeds], 1)
        data.qvel[:] = deviation[speeds:2 * speeds]
        data.ctrl[:] = (self.action + deviation[2 * speeds:]) * self._bounds
        for _ in range(self._frames):
            mujoco.mj_step(model, data)
        moved = np.zeros(speeds)
        mujoco.mj_differentiatePos(model, moved, 1, self.pose, data.qpos)
        return np.concatenate([moved, data.qvel])


def _rated(env: SafetyGymnasiumEnv, policy: LinearPolicy, horizon: int) -> LinearPolicy:
    reward = cost = 0.0
    for seed in range(FIRST_RATED, FIRST_RATED + RATED):
        observation, _ = env.reset(seed)
        for _ in range(horizon):
            observation, gained, paid, terminated, *_ = env.step(policy.action(observation["vector"])
                                                                 .astype(np.float32))
            reward, cost = reward + gained / RATED, cost + paid / RATED
            if terminated:
                break
    return replace(policy, reward=reward, cost=cost)


if __name__ == "__main__":
    for gait in tyro.cli(Standing).run():
        print(f"return {gait.reward:.0f}, cost {gait.cost:.1f}")
