"""Where on the table the tool would touch an obstacle or the target: a map learned from where it did.

The episode's first picture is warped onto a plane parallel to the table, and a small convolutional network gives each
cell two probabilities: a tool there touches an obstacle; it touches the target. The network sees no coordinates, so
what was learned of an obstacle in one place holds in every place. Labels are the recorded costs and rewards at the
tool's recorded places; one picture serves a whole episode, until something is first touched and stands elsewhere.
Not in the papers. It needs a calibrated camera, a tool that stays at one height, and a scene that stays as it was
when the episode began; without a projection it is off.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from safe_policy_core.errors import ConfigurationError
from safe_policy_core.interfaces import Specs
from safe_policy_core.networks.convolution import ChannelNorm
from safe_policy_core.networks.paired import follow
from safe_policy_core.vision.projection import Projection
from safe_policy_core.vision.tool_view import IMAGE, POSE, SCENE

UNDISTURBED = "undisturbed"
"""Field of a batch: nothing had been touched before the row."""
CONTACT_PLACE = "contact_place"
"""Field of a batch: where the tool would touch an added obstacle (x, y) [m], drawn anew for each row; NaN without."""
_DILATIONS = (1, 1, 2, 4, 1)
"""Of the 3 x 3 convolutions: a cell sees the 19 x 19 around it."""
_INWARDS = (0.007, 0.014, 0.021)
"""How far beyond its rim a target surely reaches, for a tool that comes from there [m]."""
_RARE = -4.0
"""Logit with which training begins: few recorded places are contacts or arrivals."""


@dataclass(frozen=True)
class TableMapConfig:
    """Off with `cells` 0, and until the camera's projection is known. The area is SafeReach's operating area."""

    cells: int = 0
    """Cells along each side of the map."""
    low: tuple[float, float] = (0.375, -0.125)
    """The area's smallest x and y in the base frame [m]; beyond it the tool does not go."""
    high: tuple[float, float] = (0.625, 0.125)
    """Its largest."""
    height: float = 0.02
    """Height of the plane above the table [m], as `ToolViewConfig.height`."""
    depth: int = 16
    """Channels."""
    scenes: int = 8
    """Sequences of a batch that the map learns from: it takes time, and few are enough."""

    added_weight: float = 0.1
    """Weight of places where the tool would touch an added obstacle, beside one for the recorded places: contacts
    are a few in a hundred of those."""

    slow_rate: float = 0.005
    """Rate at which the slow copy, by which is acted, follows. With a constant rate of learning the learned map saw
    things at the hand at one step and not at the next: of 100 episodes 2 and 11 did not arrive with it after 2,000 and
    3,000 steps, with the slow copies of the same networks 0 and 1."""

    empty_weight: float = 0.05
    """Weight of the belief that no place of the map is the target, beside what the recorded places say: targets are
    small. Without it the map saw some where the tool is never recorded, under the hand, and waited there."""

    def __post_init__(self) -> None:
        if self.cells < 0 or self.cells == 1:
            raise ConfigurationError(f"table_map.cells: expected 0 or at least 2, got {self.cells}")
        if not all(low < high for low, high in zip(self.low, self.high, strict=True)):
            raise ConfigurationError(f"table_map.low, high: expected low below high, got {self.low} and {self.high}")


class TableMap(nn.Module):
    """First pictures (N, H, W, C) uint8 -> logits (N, 2, cells, cells): contact and arrival; rows along y.

    The slow copy of the network that learns.
    """

    places: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, specs: Specs, config: TableMapConfig, projection: tuple[float, ...]) -> None:
        """Raises `ConfigurationError` for specs without image and pose."""
        super().__init__()
        if IMAGE not in specs.observation or POSE not in specs.observation:
            raise ConfigurationError(f"table_map: needs observations {IMAGE!r} and {POSE!r}, got "
                                     f"{sorted(specs.observation)}")
        self.config = config
        layers: list[nn.Module] = []
        channels = specs.observation[IMAGE].shape[-1]
        for dilation in _DILATIONS:
            layers += [nn.Conv2d(channels, config.depth, 3, padding=dilation, dilation=dilation, bias=False),
                       ChannelNorm(config.depth), nn.SiLU()]
            channels = config.depth
        output = nn.Conv2d(channels, 2, 1)
        nn.init.constant_(cast(Tensor, output.bias), _RARE)
        self.network = nn.Sequential(*layers, output).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.slow = copy.deepcopy(self.network).requires_grad_(False)
        centres = [low + (np.arange(config.cells) + 0.5) / config.cells * (high - low)
                   for low, high in zip(config.low, config.high, strict=True)]
        table = np.pad(np.stack(np.meshgrid(*centres), -1), ((0, 0), (0, 0), (0, 1)), constant_values=1.0)
        seen = table @ Projection.from_row(projection).homography(config.height).T
        self.register_buffer("places", torch.tensor(seen[..., :2] / seen[..., 2:] * 2 - 1, dtype=torch.float32), False)
        self.register_buffer("low", torch.tensor(config.low), False)
        self.register_buffer("high", torch.tensor(config.high), False)

    def seen_from_above(self, pictures: Tensor) -> Tensor:
        """(N, H, W, C) uint8 -> (N, C, cells, cells) around 0."""
        values = pictures.permute(0, 3, 1, 2).float() / 255 - 0.5
        return functional.grid_sample(values, self.places.expand(len(values), -1, -1, -1), align_corners=False)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.slow(self.seen_from_above(pictures))

    def at(self, logits: Tensor, tool: Tensor) -> Tensor:
        """(N, 2, cells, cells) at places (N, L, 2) x, y [m] -> (N, 2, L), between the cells' centres linearly."""
        places = (tool - self.low) / (self.high - self.low) * 2 - 1
        return functional.grid_sample(logits, places.unsqueeze(2), padding_mode="border", align_corners=False)[..., 0]

    def loss(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross entropies at the recorded places of the first `scenes` sequences (B, L, ...), and metrics.

        A sequence counts as far as the episode of its first row goes and nothing has been touched before. A tool that
        had gone on in its direction where it touched the target would have touched it there as well: no tool is ever
        recorded within it, and a map of its rim alone is easily stepped over. Where the
        batch knows places at which the tool would touch something (`CONTACT_PLACE`), those count as contacts too;
        and every cell counts a little as no target.
        """
        count = min(self.config.scenes, len(batch["cost"]))
        part = {name: values[:count] for name, values in batch.items()}
        later = part["is_first"].clone()
        later[:, 0] = False
        same = later.cumsum(1) == 0
        maps = self.network(self.seen_from_above(part[SCENE][:, 0]))
        happened = torch.stack([part["cost"] > 0, part["reward"] > 0], 1).float()
        tool, counts = part[POSE][..., :2], same & part[UNDISTURBED]
        losses = functional.binary_cross_entropy_with_logits(self.at(maps, tool), happened, reduction="none")
        contact, arrival = (_mean(losses[:, kind], counts) for kind in range(2))
        further = torch.stack([self.at(maps, tool + depth * _direction(tool)) for depth in _INWARDS])
        missed = (functional.softplus(-further[:, :, 1]) + functional.softplus(further[:, :, 0])).mean(0)
        within = _mean((missed * happened[:, 1])[:, 1:], counts[:, 1:])
        empty = functional.softplus(maps[:, 1]).mean()
        loss = contact + arrival + within + self.config.empty_weight * empty
        metrics = {"table_map/contact": contact, "table_map/arrival": arrival, "table_map/within": within,
                   "table_map/empty": empty}
        if CONTACT_PLACE in part:
            known = same & part[CONTACT_PLACE].isfinite().all(-1)
            added = functional.softplus(-self.at(maps, part[CONTACT_PLACE].nan_to_num())[:, 0])
            metrics["table_map/added_contact"] = added = _mean(added, known)
            loss = loss + self.config.added_weight * added
        return loss, {name: value.detach() for name, value in metrics.items()}

    def update_slow(self) -> None:
        """slow <- slow + rate * (network - slow)."""
        follow(self.slow, self.network, self.config.slow_rate)


def _direction(tool: Tensor) -> Tensor:
    """(B, L, 2) places -> unit vectors of the steps that led there; 0 for the first, and for rest."""
    return functional.normalize(functional.pad(tool.diff(dim=1), (0, 0, 1, 0)), dim=-1)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum().clamp(min=1)
