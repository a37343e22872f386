"""Parameters with a description and a range; most are fixed once a node runs."""

from __future__ import annotations

from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node

from safe_policy_core.errors import ConfigurationError


def declare(node: Node, name: str, default: Any, description: str, low: float | None = None,
            high: float | None = None, changeable: bool = False) -> Any:
    """Declares a parameter, read-only unless `changeable`, and returns its value. `low` and `high` are inclusive.

    Raises `ConfigurationError` naming the parameter, what came and what was expected.
    """
    descriptor = ParameterDescriptor(description=description, read_only=not changeable)
    bounds = ""
    if low is not None and high is not None:
        bounds = f" in [{low}, {high}]"
        if isinstance(default, float):
            descriptor.floating_point_range = [FloatingPointRange(from_value=float(low), to_value=float(high))]
        else:
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high))]
    try:
        return node.declare_parameter(name, default, descriptor).value
    except (InvalidParameterTypeException, InvalidParameterValueException) as error:
        override = node._parameter_overrides.get(name)
        came = repr(override.value) if override is not None else "nothing"
        raise ConfigurationError(f"parameter {name}: expected {type(default).__name__}{bounds} ({description}), "
                                 f"got {came}") from error
