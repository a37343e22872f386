"""What a calibrated camera lets learning know: where a pixel lies on the table, and what the tool would meet there."""

from safe_policy_core.vision.projection import Projection
from safe_policy_core.vision.table_map import TableMap, TableMapConfig
from safe_policy_core.vision.tool_view import Surroundings, ToolView, ToolViewConfig

__all__ = ["Projection", "Surroundings", "TableMap", "TableMapConfig", "ToolView", "ToolViewConfig"]
