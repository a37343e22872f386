"""Projection and tool view, on a camera whose pictures can be worked out by hand."""

import numpy as np
import pytest
import torch

from safe_policy_core.errors import ConfigurationError
from safe_policy_core.interfaces import Spec, Specs
from safe_policy_core.vision import Projection, ToolView, ToolViewConfig

SIDE = 64
ABOVE = Projection.from_camera(np.array([[1.0, 0, 0.5], [0, 1.0, 0.5], [0, 0, 1]]), np.diag([1.0, -1.0, -1.0]),
                               np.array([-0.5, 0.0, 1.0]))
"""One metre above (0.5, 0), looking straight down: a picture is 1 m wide, x to the right, y upwards."""
SPECS = Specs({"image": Spec("image", (SIDE, SIDE, 3), "uint8", 0, 255), "pose": Spec("pose", (6,))},
              Spec("action", (6,), low=-1.0, high=1.0), {"max_translation_step": 0.02})


def picture(x: float, y: float, half: float = 0.04) -> np.ndarray:
    """A white square of the table on black, as the camera above sees it: (SIDE, SIDE, 3) uint8."""
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    centres = (np.arange(SIDE) + 0.5) / SIDE
    columns, rows = np.abs(centres - (x - 0.5) - 0.5) < half, np.abs(centres - (0.5 - y)) < half
    image[np.ix_(rows, columns)] = 255
    return image


def observation(image: np.ndarray, x: float, y: float) -> dict[str, torch.Tensor]:
    pose = torch.tensor([[x, y, 0.0, 0.0, 0.0, 0.0]])
    return {"image": torch.as_tensor(image)[None], "scene": torch.as_tensor(image)[None], "pose": pose}


def test_points_and_pixels() -> None:
    pixel, depth = ABOVE.pixels(np.array([0.5, 0.0, 0.0]))
    assert np.allclose(pixel, 0.5) and np.isclose(depth, 1.0)
    assert np.allclose(ABOVE.pixels(np.array([0.7, 0.1, 0.0]))[0], [0.7, 0.4])
    # Half a metre up everything is twice as large.
    assert np.allclose(ABOVE.pixels(np.array([0.6, 0.1, 0.5]))[0], [0.7, 0.3])


@pytest.mark.parametrize("height", [0.0, 0.02])
def test_back_to_the_plane(height: float) -> None:
    places = np.random.default_rng(0).uniform(-0.3, 0.3, (20, 2))
    pixels, _ = ABOVE.pixels(np.column_stack([places, np.full(20, height)]))
    assert np.allclose(ABOVE.on_plane(pixels, height), places)


def test_row_round_trip_and_errors() -> None:
    assert np.array_equal(Projection.from_row(ABOVE.row).matrix, ABOVE.matrix)
    with pytest.raises(ConfigurationError, match="12 numbers"):
        Projection.from_row(ABOVE.row[:9])
    with pytest.raises(ConfigurationError, match="finite"):
        Projection(np.full((3, 4), np.nan))


class TestToolView:
    view = ToolView(SPECS, ToolViewConfig(ABOVE.row, height=0.0, low=(-0.16, -0.16), high=(0.16, 0.16)))

    def window(self, image: np.ndarray, x: float, y: float) -> torch.Tensor:
        return self.view.windows(ToolView.surroundings(observation(image, x, y)))[0]

    def test_the_tool_is_in_the_middle(self) -> None:
        window = self.window(picture(0.6, 0.1), 0.6, 0.1)
        assert window.shape == (40, 40, 6)
        assert window[18:22, 18:22].min() == 255
        assert window[:8].max() == 0

    def test_columns_run_along_x_and_rows_along_y(self) -> None:
        rows, columns = np.nonzero(self.window(picture(0.68, 0.04), 0.6, 0.0)[..., 0].numpy() > 128)
        step = 0.32 / 40
        assert abs((columns.mean() + 0.5) * step - 0.16 - 0.08) < 0.005
        assert abs((rows.mean() + 0.5) * step - 0.16 - 0.04) < 0.005

    def test_the_same_surroundings_look_the_same_elsewhere(self) -> None:
        # Moves by whole pixels, so that nothing is interpolated otherwise.
        here = self.window(picture(0.5 + 4 / 64, 0.0), 0.5, 0.0)
        there = self.window(picture(0.5 + 12 / 64, -8 / 64), 0.5 + 8 / 64, -8 / 64)
        assert (here - there).abs().max() < 1

    def test_outside_the_picture_is_black(self) -> None:
        assert self.window(np.full((SIDE, SIDE, 3), 255, np.uint8), 1.5, 0.0).max() == 0

    def test_an_imagined_step_shows_what_a_real_one_would(self) -> None:
        image = picture(0.6, 0.05)
        before = ToolView.surroundings(observation(image, 0.55, 0.0))
        after = ToolView.surroundings(observation(image, 0.57, -0.01))
        action = torch.tensor([[1.0, -0.5, 0, 0, 0, 0]])
        assert torch.allclose(self.view.windows(self.view.after(before, action)), self.view.windows(after), atol=1e-2)

    def test_moving_towards_something_has_a_gradient(self) -> None:
        action = torch.zeros(1, 6, requires_grad=True)
        around = ToolView.surroundings(observation(picture(0.6, 0.05), 0.55, 0.0))
        self.view(self.view.after(around, action)).square().sum().backward()
        assert action.grad is not None and action.grad[0, :2].abs().min() > 0

    def test_what_it_needs(self) -> None:
        with pytest.raises(ConfigurationError, match="projection"):
            ToolView(SPECS, ToolViewConfig())
        without = Specs({"image": SPECS.observation["image"]}, SPECS.action, SPECS.scales)
        with pytest.raises(ConfigurationError, match="pose"):
            ToolView(without, ToolViewConfig(ABOVE.row))
