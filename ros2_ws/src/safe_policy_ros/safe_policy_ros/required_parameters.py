"""Parameters that have no default: a node that is not told them does not start."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from safe_policy_core.errors import ConfigurationError


@dataclass(frozen=True)
class Number:
    """A float with its inclusive range and meaning."""

    low: float
    high: float
    description: str


@dataclass(frozen=True)
class Numbers:
    """`length` floats, each within the inclusive range; with `groups` one or more times as many."""

    length: int
    low: float
    high: float
    description: str
    groups: bool = False


@dataclass(frozen=True)
class Text:
    description: str


Kind = Number | Numbers | Text


def declare_required(node: Node, kinds: Mapping[str, Kind], hint: str) -> dict[str, Any]:
    """Declares read-only parameters without defaults and returns their values by name.

    Raises `ConfigurationError` naming all that are missing, with `hint`, or the first that has a wrong
    type or is out of range.
    """
    values = {name: _declare(node, name, kind) for name, kind in kinds.items()}
    if missing := [name for name, value in values.items() if value is None]:
        raise ConfigurationError(f"{node.get_name()}: parameter {', '.join(missing)} missing; {hint}")
    return values


def _declare(node: Node, name: str, kind: Kind) -> Any:
    descriptor = ParameterDescriptor(description=kind.description, read_only=True)
    parameter_type = {Number: Parameter.Type.DOUBLE, Numbers: Parameter.Type.DOUBLE_ARRAY,
                      Text: Parameter.Type.STRING}[type(kind)]
    expected = "text"
    if isinstance(kind, Number):
        expected = f"a float in [{kind.low:g}, {kind.high:g}]"
        descriptor.floating_point_range = [FloatingPointRange(from_value=kind.low, to_value=kind.high)]
    elif isinstance(kind, Numbers):
        expected = f"{'a multiple of ' if kind.groups else ''}{kind.length} floats in [{kind.low:g}, {kind.high:g}]"
    override = node._parameter_overrides.get(name)
    wrong = ConfigurationError(f"{node.get_name()}: parameter {name}: expected {expected} ({kind.description}), got "
                               f"{override.value if override is not None else 'nothing'}")
    try:
        value: Any = node.declare_parameter(name, parameter_type, descriptor).value
    except (InvalidParameterTypeException, InvalidParameterValueException) as error:
        raise wrong from error
    if value is None or isinstance(kind, Text):
        return value
    # ROS takes NaN as inside every range, and knows no ranges of arrays.
    numbers = list(value) if isinstance(kind, Numbers) else [value]
    if isinstance(kind, Numbers) and kind.groups:
        wrong_length = not numbers or len(numbers) % kind.length != 0
    else:
        wrong_length = len(numbers) != (kind.length if isinstance(kind, Numbers) else 1)
    if wrong_length or not all(math.isfinite(v) and kind.low <= v <= kind.high for v in numbers):
        raise wrong
    return tuple(numbers) if isinstance(kind, Numbers) else value
