"""Imports safety_gymnasium 1.0.0 on Python 3.11 and later.

Its dataclasses have numpy arrays as field defaults, which Python 3.11 refuses ("mutable default
<class 'numpy.ndarray'>"). During the import, and only then, such defaults become factories that
copy the array.
"""

from __future__ import annotations

import dataclasses
import importlib
from types import ModuleType
from typing import Any

import numpy as np


def import_safety_gymnasium() -> ModuleType:
    """The package, imported once; the repair of `dataclasses` is undone afterwards."""
    original = dataclasses._get_field  # type: ignore[attr-defined]

    def get_field(cls: type, name: str, annotation: Any, *rest: Any) -> Any:
        default = getattr(cls, name, dataclasses.MISSING)
        if isinstance(default, np.ndarray):
            setattr(cls, name, dataclasses.field(default_factory=default.copy))
        return original(cls, name, annotation, *rest)

    dataclasses._get_field = get_field  # type: ignore[attr-defined]
    try:
        return importlib.import_module("safety_gymnasium")
    finally:
        dataclasses._get_field = original  # type: ignore[attr-defined]
