"""Changing single settings of a configuration from the command line: `horizon=10 world_model.depth=32`."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Iterable
from typing import Any

from safe_policy_core.errors import ConfigurationError
from safe_policy_core.methods.registry import config_module, learner_class


def preset(method: str, name: str) -> Any:
    """A method's configuration by the name of a preset. Raises `ConfigurationError` listing the known names.

    A method whose config module has no `PRESETS` has one, "small", of its defaults.
    """
    presets = getattr(config_module(method), "PRESETS", None) or {"small": learner_class(method).config_class}
    if name not in presets:
        raise ConfigurationError(f"preset: unknown name {name!r}, expected one of {sorted(presets)}")
    return presets[name]()


def override(config: Any, settings: Iterable[str]) -> Any:
    """A copy of a configuration dataclass with `name=value` settings changed; dots reach into nested ones.

    Raises `ConfigurationError` naming the setting, with the known names or the expected type.
    """
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ConfigurationError(f"set: expected name=value, got {setting!r}")
        config = _replace(config, name.strip().split("."), text.strip(), name)
    return config


def _replace(config: Any, path: list[str], text: str, name: str) -> Any:
    hints = typing.get_type_hints(type(config))
    fields = [field.name for field in dataclasses.fields(config)]
    if path[0] not in fields:
        raise ConfigurationError(f"set: unknown setting {name!r}, expected one of {', '.join(fields)}")
    current = getattr(config, path[0])
    if len(path) > 1:
        if not dataclasses.is_dataclass(current):
            raise ConfigurationError(f"set: {name}: {path[0]} has no settings inside")
        return dataclasses.replace(config, **{path[0]: _replace(current, path[1:], text, name)})
    return dataclasses.replace(config, **{path[0]: _parse(text, hints[path[0]], name)})


def _parse(text: str, kind: Any, name: str) -> Any:
    """`text` as a value of a bool, int, float, str, Literal, optional or tuple type."""
    origin, choices = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if text.lower() == "none" and type(None) in choices:
            return None
        kind = next(choice for choice in choices if choice is not type(None))
        origin, choices = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        if text in choices:
            return text
        raise ConfigurationError(f"set: {name}: expected one of {', '.join(map(str, choices))}, got {text!r}")
    if kind is str:
        return text
    try:
        value = json.loads(text.lower() if kind is bool else text)
    except ValueError:
        value = None
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if origin is tuple and isinstance(value, list):
        return tuple(value)
    if type(value) is kind:
        return value
    raise ConfigurationError(f"set: {name}: expected {getattr(kind, '__name__', kind)}, got {text!r}")
