"""The Swimmer with a model that MuJoCo 3 loads.

gymnasium's `swimmer.xml` has the option `collision`, which MuJoCo 3 refuses; its value ("predefined") means here that
nothing collides, so the same is said of the geometry.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mujoco
from safety_gymnasium.tasks.safe_velocity.safety_swimmer_velocity_v1 import SafetySwimmerVelocityEnv


class SwimmerVelocityEnv(SafetySwimmerVelocityEnv):
    """SafetySwimmerVelocity-v1 from a repaired copy of its model, kept in memory."""

    def _initialize_simulation(self) -> tuple[Any, Any]:
        xml = Path(self.fullpath).read_text().replace(' collision="predefined"', "")
        model = mujoco.MjModel.from_xml_string(xml)
        model.geom_contype[:] = model.geom_conaffinity[:] = 0
        model.vis.global_.offwidth, model.vis.global_.offheight = self.width, self.height
        return model, mujoco.MjData(model)
