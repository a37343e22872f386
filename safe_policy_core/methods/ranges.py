"""Which numbers a configuration may have, checked before anything is trained with them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from safe_policy_core.errors import ConfigurationError

log = logging.getLogger(__name__)


class Range(NamedTuple):
    """expected: in words. fits: whether a finite number is in it."""

    expected: str
    fits: Callable[[float], bool]


FINITE = Range("a finite number", lambda value: True)
AT_LEAST_0 = Range("a finite number of at least 0", lambda value: value >= 0)
ABOVE_0 = Range("a finite number above 0", lambda value: value > 0)
AT_LEAST_1 = Range("at least 1", lambda value: value >= 1)
SHARE = Range("a share from 0 to 1", lambda value: 0 <= value <= 1)
SHARE_ABOVE_0 = Range("a share above 0 and up to 1", lambda value: 0 < value <= 1)
BELOW_1 = Range("a number from 0 to below 1", lambda value: 0 <= value < 1)
BETWEEN_0_AND_1 = Range("a number above 0 and below 1", lambda value: 0 < value < 1)


def check_ranges(config: Any, ranges: Mapping[str, Range]) -> None:
    """Raises `ConfigurationError` naming the first number that is out of its range, NaN and infinities included.

    ranges: by the setting's name. What a configuration does not have, or leaves to a default by None, is passed over.
    """
    for name, (expected, fits) in ranges.items():
        value = getattr(config, name, None)
        if value is not None and not (math.isfinite(value) and fits(value)):
            raise ConfigurationError(f"{name}: expected {expected}, got {value:g}")


def warn_outside(name: str, cost: float, cheapest: float, dearest: float) -> None:
    """Logs a cost of an episode that no episode of the data has: what is learned there is an extrapolation."""
    if not cheapest <= cost <= dearest:
        log.warning("%s: %g is outside of the data's costs, %g to %g", name, cost, cheapest, dearest)
