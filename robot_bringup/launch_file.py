"""Reads ROS 2 YAML launch files into the processes they describe.

The subset that this project uses: arg, let, node, executable, include, group, set_env; `if` and
`unless`; the substitutions var, env, find-pkg-share, dirname and not. Anything else is an error that
names it, never silently left out: the same file must mean the same under `ros2 launch`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

PACKAGE = Path(__file__).resolve().parent


class LaunchError(Exception):
    """A launch file or its arguments are wrong; one line says what and where."""


@dataclass(frozen=True)
class Process:
    """One program to start. required: all others stop when it ends (`on_exit: shutdown`)."""

    name: str
    command: list[str]
    required: bool
    environment: dict[str, str]


@dataclass
class _Scope:
    path: Path
    variables: dict[str, str]
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Argument:
    """A declared launch argument. default: None when the user must give it."""

    name: str
    default: str | None
    description: str


def launch_files() -> dict[str, Path]:
    """Launch files of this package by short name."""
    return {path.name.removesuffix(".launch.yaml"): path for path in sorted((PACKAGE / "launch").glob("*.launch.yaml"))}


def find(name: str) -> Path:
    """The launch file of a short name or a path. Raises `LaunchError` listing the known names."""
    known = launch_files()
    if name in known:
        return known[name]
    if name.endswith(".launch.yaml") and Path(name).exists():
        return Path(name)
    raise LaunchError(f"unknown launch file {name!r}; expected one of {', '.join(known)}, or a path to a .launch.yaml")


def arguments(path: Path) -> list[Argument]:
    """What the file lets its user set."""
    return [Argument(entry["name"], entry.get("default"), entry.get("description", ""))
            for kind, entry in _actions(path) if kind == "arg"]


def processes(path: Path, given: Mapping[str, str], environment: Mapping[str, str]) -> list[Process]:
    """The processes of a launch file. Raises `LaunchError` for an unknown or missing argument, tag or file."""
    declared = {argument.name: argument for argument in arguments(path)}
    if unknown := given.keys() - declared.keys():
        raise LaunchError(f"{path.name}: unknown argument {', '.join(sorted(unknown))}; "
                          f"known: {', '.join(declared) or 'none'}")
    missing = [name for name, argument in declared.items() if argument.default is None and name not in given]
    if missing:
        raise LaunchError(f"{path.name}: argument {', '.join(missing)} is required; add {missing[0]}:=VALUE "
                          f"({declared[missing[0]].description})")
    scope = _Scope(path, dict(given), dict(environment))
    return list(_walk(_actions(path), scope))


def _actions(path: Path) -> list[tuple[str, Any]]:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise LaunchError(f"{path}: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not isinstance(content.get("launch"), list):
        raise LaunchError(f"{path}: expected a list under the key `launch`")
    return _entries(content["launch"], path)


def _entries(actions: list[Any], path: Path) -> list[tuple[str, Any]]:
    entries = []
    for action in actions:
        if not (isinstance(action, dict) and len(action) == 1):
            raise LaunchError(f"{path.name}: expected one tag an entry, got {action!r}")
        entries.append(next(iter(action.items())))
    return entries


def _walk(entries: list[tuple[str, Any]], scope: _Scope) -> list[Process]:
    found: list[Process] = []
    for tag, entry in entries:
        if not _wanted(entry, scope):
            continue
        if tag == "arg":
            if entry["name"] not in scope.variables:
                scope.variables[entry["name"]] = _text(entry["default"], scope)
        elif tag == "let":
            scope.variables[entry["name"]] = _text(entry["value"], scope)
        elif tag == "set_env":
            scope.environment[entry["name"]] = _text(entry["value"], scope)
        elif tag == "node":
            found.append(_node(entry, scope))
        elif tag == "executable":
            found.append(_executable(entry, scope))
        elif tag == "group":
            inner = _Scope(scope.path, dict(scope.variables), dict(scope.environment))
            found += _walk(_entries(entry["actions"] if isinstance(entry, dict) else entry, scope.path), inner)
        elif tag == "include":
            given = {a["name"]: _text(a["value"], scope) for a in entry.get("arg", [])}
            found += processes(Path(_text(entry["file"], scope)), given, scope.environment)
        else:
            raise LaunchError(f"{scope.path.name}: tag {tag!r} is not supported here; "
                              "use arg, let, set_env, node, executable, group or include")
    return found


def _wanted(entry: Any, scope: _Scope) -> bool:
    if not isinstance(entry, dict):
        return True
    for key, truth in (("if", True), ("unless", False)):
        if key in entry:
            value = _text(entry[key], scope).strip().lower()
            if value not in ("true", "1", "false", "0"):
                raise LaunchError(f"{scope.path.name}: `{key}` expects true or false, got {value!r}")
            if (value in ("true", "1")) is not truth:
                return False
    return True


_NODE_KEYS = {"pkg", "exec", "name", "namespace", "param", "remap", "args", "ros_args", "output", "on_exit", "if",
              "unless", "env"}
_EXECUTABLE_KEYS = {"cmd", "name", "output", "on_exit", "if", "unless", "env"}


def _check_keys(entry: dict[str, Any], known: set[str], scope: _Scope) -> None:
    if unknown := entry.keys() - known:
        raise LaunchError(f"{scope.path.name}: {entry.get('name', entry.get('cmd', ''))}: "
                          f"unsupported key {', '.join(sorted(unknown))}")
    if entry.get("on_exit", "shutdown") != "shutdown":
        raise LaunchError(f"{scope.path.name}: on_exit: expected shutdown, got {entry['on_exit']!r}")


def _node(entry: dict[str, Any], scope: _Scope) -> Process:
    _check_keys(entry, _NODE_KEYS, scope)
    package, program = _text(entry["pkg"], scope), _text(entry["exec"], scope)
    name = _text(entry.get("name", program), scope)
    command = [_program(package, program, scope), *shlex.split(_text(entry.get("args", ""), scope)), "--ros-args",
               "-r", f"__node:={name}", *shlex.split(_text(entry.get("ros_args", ""), scope))]
    if "namespace" in entry:
        command += ["-r", f"__ns:=/{_text(entry['namespace'], scope).strip('/')}"]
    for remap in entry.get("remap", []):
        command += ["-r", f"{_text(remap['from'], scope)}:={_text(remap['to'], scope)}"]
    for parameter in entry.get("param", []):
        if "from" in parameter:
            file = Path(_text(parameter["from"], scope))
            if not file.exists():
                raise LaunchError(f"{scope.path.name}: {name}: parameter file {file} does not exist")
            command += ["--params-file", str(file)]
        else:
            command += ["-p", f"{parameter['name']}:={_value(parameter['value'], scope)}"]
    return Process(name, command, entry.get("on_exit") == "shutdown", _environment(entry, scope))


def _executable(entry: dict[str, Any], scope: _Scope) -> Process:
    _check_keys(entry, _EXECUTABLE_KEYS, scope)
    command = shlex.split(_text(entry["cmd"], scope))
    return Process(_text(entry.get("name", Path(command[0]).name), scope), command,
                   entry.get("on_exit") == "shutdown", _environment(entry, scope))


def _environment(entry: dict[str, Any], scope: _Scope) -> dict[str, str]:
    return scope.environment | {e["name"]: _text(e["value"], scope) for e in entry.get("env", [])}


def _value(value: Any, scope: _Scope) -> str:
    """A parameter's value as YAML on one line; text comes from substitutions and keeps its own type."""
    if isinstance(value, str):
        text = _text(value, scope)
        return text if text else "''"
    return json.dumps(value)


_SUBSTITUTION = re.compile(r"\$\(([a-z-]+)((?:\s+[^()$]+)?)\)")


def _text(value: Any, scope: _Scope) -> str:
    """`value` with its substitutions replaced, innermost first."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    while match := _SUBSTITUTION.search(text):
        text = text[:match.start()] + _substitute(match[1], match[2].split(), scope) + text[match.end():]
    if "$(" in text:
        raise LaunchError(f"{scope.path.name}: cannot read the substitution in {text!r}")
    return text


def _substitute(kind: str, words: list[str], scope: _Scope) -> str:
    if kind == "var" and words:
        if words[0] not in scope.variables:
            raise LaunchError(f"{scope.path.name}: $(var {words[0]}) is not set")
        return scope.variables[words[0]]
    if kind == "env" and words:
        if words[0] in scope.environment:
            return scope.environment[words[0]]
        if len(words) > 1:
            return " ".join(words[1:]).strip("'\"")
        raise LaunchError(f"{scope.path.name}: environment variable {words[0]} is not set")
    if kind == "find-pkg-share" and words:
        return str(_share(words[0], scope))
    if kind == "dirname":
        return str(scope.path.parent)
    if kind == "not" and words:
        return str(words[0].lower() not in ("true", "1")).lower()
    raise LaunchError(f"{scope.path.name}: substitution $({kind} ...) is not supported here; "
                      "use var, env, find-pkg-share, dirname or not")


def _prefixes(scope: _Scope) -> list[Path]:
    return [Path(p) for p in scope.environment.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]


def _share(package: str, scope: _Scope) -> Path:
    if package == PACKAGE.name:
        return PACKAGE  # the files beside this one, whether or not they were installed too
    for prefix in _prefixes(scope):
        if (prefix / "share" / package).is_dir():
            return prefix / "share" / package
    raise LaunchError(f"{scope.path.name}: package {package} not found; run `make setup`")


def _program(package: str, program: str, scope: _Scope) -> str:
    for prefix in _prefixes(scope):
        path = prefix / "lib" / package / program
        if path.exists():
            return str(path)
    raise LaunchError(f"{scope.path.name}: {package} has no executable {program}; run `make setup`")
