"""What the camera sees around the tool, as seen from above: a context beside the world model's latent state.

A fixed camera's picture is warped onto a plane parallel to the table and cut out around the tool. An
obstacle 4 cm to the left of the tool then looks the same wherever on the table that is, so what was
learned of contacts in one place holds in every place. A latent vector that must first learn to draw
obstacles wherever they may stand needs orders of magnitude more data and steps (seen here: after 1000
updates its reconstructions still smear them). Two pictures are cut: the newest, and the episode's first, in which the
arm hides nothing yet. In imagination the pictures stay and the cut moves with the imagined tool.
Not in the papers, which learn from the camera's picture alone; without a projection it is off.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from safe_policy_core.errors import ConfigurationError
from safe_policy_core.interfaces import Specs
from safe_policy_core.networks.convolution import ImageEncoder
from safe_policy_core.networks.mlp import Hidden, initialise
from safe_policy_core.vision.projection import Projection

IMAGE, POSE, SCENE = "image", "pose", "scene"
"""The newest picture, the tool's pose (x, y first), and the episode's first picture."""
STEP_SCALE = "max_translation_step"


@dataclass(frozen=True)
class ToolViewConfig:
    """Off until `projection` is known; a dataset of a calibrated camera brings it."""

    projection: tuple[float, ...] | None = None
    """The camera's 3 x 4 matrix by rows (`Projection`), for the recorded pictures."""
    height: float = 0.02
    """Height of the plane above the table [m]: what stands there keeps its place, what is higher leans away."""
    low: tuple[float, float] = (-0.13, -0.09)
    """The window's smallest x and y, relative to the tool [m]."""
    high: tuple[float, float] = (0.13, 0.17)
    """Its largest."""
    side: int = 40
    """Side of the window [pixels]."""
    stem: int = 5
    """Side of the patches on which the network works [pixels]; `side` is this times 4 times a power of 2."""
    depth: int = 32
    """Channels of the network at its finest stage."""
    size: int = 128
    """Numbers that it makes of a window."""


@dataclass(frozen=True)
class Surroundings:
    """Pictures and where the tool is in them. pictures: (N, 2 * channels, H, W) floats. tool: (N, 2) x, y [m]."""

    pictures: Tensor
    tool: Tensor

    def select(self, index: Tensor) -> Surroundings:
        return Surroundings(self.pictures[index], self.tool[index])

    def repeated(self, count: int) -> Surroundings:
        """`count` rows that look like the only one."""
        return Surroundings(self.pictures.expand(count, -1, -1, -1), self.tool.expand(count, -1))

    def moved(self, step: Tensor) -> Surroundings:
        """The tool elsewhere by (N, 2) [m]."""
        return Surroundings(self.pictures, self.tool + step)


class ToolView(nn.Module):
    """`Surroundings` -> (N, size)."""

    grid: Tensor
    homography: Tensor

    def __init__(self, specs: Specs, config: ToolViewConfig) -> None:
        """Raises `ConfigurationError` without a projection, or for specs without image, pose and step length."""
        super().__init__()
        observation = specs.observation
        if config.projection is None:
            raise ConfigurationError("tool_view.projection: missing; a calibrated camera gives it")
        if IMAGE not in observation or POSE not in observation or observation[POSE].shape[0] < 2 \
                or STEP_SCALE not in specs.scales:
            raise ConfigurationError(f"tool_view: needs observations {IMAGE!r} and {POSE!r} and the scale "
                                     f"{STEP_SCALE!r}, got {sorted(observation)} and {sorted(specs.scales)}")
        self.step_length = specs.scales[STEP_SCALE]
        channels = 2 * observation[IMAGE].shape[-1]
        self.network = ImageEncoder((config.side, config.side, channels), config.depth, config.stem)
        self.output = Hidden(self.network.size, config.size)
        initialise(self.output)
        centres = [low + (np.arange(config.side) + 0.5) / config.side * (high - low)
                   for low, high in zip(config.low, config.high, strict=True)]
        homography = Projection.from_row(config.projection).homography(config.height)
        self.register_buffer("grid", torch.tensor(np.stack(np.meshgrid(*centres), -1), dtype=torch.float32), False)
        self.register_buffer("homography", torch.tensor(homography, dtype=torch.float32), False)

    @staticmethod
    def surroundings(observation: Mapping[str, Tensor]) -> Surroundings:
        """Of observations (..., H, W, C) `image` and `scene`, and (..., 6) `pose`; leading dimensions are flattened."""
        pictures = torch.cat([observation[IMAGE], observation[SCENE]], -1).flatten(0, -4)
        return Surroundings(pictures.permute(0, 3, 1, 2).float(), observation[POSE][..., :2].flatten(0, -2))

    def windows(self, around: Surroundings) -> Tensor:
        """(N, side, side, 2 * channels): columns along the base frame's x, rows along its y; black outside."""
        points = functional.pad(self.grid + around.tool[:, None, None], (0, 1), value=1.0) @ self.homography.T
        places = points[..., :2] / points[..., 2:] * 2 - 1
        return functional.grid_sample(around.pictures, places, align_corners=False).permute(0, 2, 3, 1).contiguous()

    def forward(self, around: Surroundings) -> Tensor:
        return self.output(self.network(self.windows(around)))

    def after(self, around: Surroundings, action: Tensor) -> Surroundings:
        """Where the tool is after (N, action_dim): it has moved as commanded."""
        return around.moved(action[:, :2] * self.step_length)
