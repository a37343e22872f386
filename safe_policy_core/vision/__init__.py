"""What a calibrated camera lets learning know: where a pixel lies on the table, and the scene around the tool."""

from safe_policy_core.vision.projection import Projection
from safe_policy_core.vision.tool_view import Surroundings, ToolView, ToolViewConfig

__all__ = ["Projection", "Surroundings", "ToolView", "ToolViewConfig"]
