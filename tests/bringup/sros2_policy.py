"""Reads an SROS 2 policy as far as the tests need: who may publish, subscribe, ask and answer what."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from robot_bringup.environment import ROOT

POLICY = ROOT / "robot_bringup" / "security" / "policy.xml"
_INCLUDE = "{http://www.w3.org/2001/XInclude}include"
_XPOINTER = "xpointer(/profile/*)"
RULES = {"topics": ("publish", "subscribe"), "services": ("request", "reply"), "actions": ("call", "execute")}
_ACTION_PARTS = {"service": ("send_goal", "cancel_goal", "get_result"), "topic": ("feedback", "status")}
# What an action's name stands for: its server answers three services and publishes two topics, its client the reverse.
_ACTION_SIDES = {"execute": {"service": "reply", "topic": "publish"}, "call": {"service": "request",
                                                                              "topic": "subscribe"}}


class PolicyError(Exception):
    """The policy is not what SROS 2 or these checks can read; one line says where."""


@dataclass(frozen=True)
class Profile:
    """A node's permissions. allowed, denied: (permission, pattern of a full name), for instance
    ("publish", "/franka/target_pose")."""

    enclave: str
    node: str
    allowed: list[tuple[str, str]] = field(default_factory=list)
    denied: list[tuple[str, str]] = field(default_factory=list)

    def may(self, permission: str, name: str) -> bool:
        """Whether a rule allows it and none denies it. permission: publish, subscribe, request or reply."""
        def hits(rules: list[tuple[str, str]]) -> bool:
            return any(kind == permission and fnmatchcase(name, pattern) for kind, pattern in rules)

        return hits(self.allowed) and not hits(self.denied)


def read_policy(path: Path = POLICY) -> list[Profile]:
    """The profiles of a policy with its inclusions. Raises `PolicyError`."""
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise PolicyError(f"{path}: {error}") from error
    if root.tag != "policy" or root.get("version") != "0.2.0":
        raise PolicyError(f"{path}: expected a policy of version 0.2.0, got {root.tag} {root.get('version')}")
    profiles = []
    for enclave in root.findall("enclaves/enclave"):
        for element in enclave.findall("profiles/profile"):
            profile = Profile(enclave.get("path", ""), element.get("node", ""))
            for rule in _expanded(element, path):
                _add(rule, profile, element.get("ns", "/"), path)
            profiles.append(profile)
    return profiles


def _expanded(element: ElementTree.Element, path: Path) -> list[ElementTree.Element]:
    """The rules of a profile; an inclusion is replaced by the rules of the profile in the other file."""
    rules = []
    for child in element:
        if child.tag != _INCLUDE:
            rules.append(child)
            continue
        if child.get("xpointer") != _XPOINTER:
            raise PolicyError(f"{path}: expected xpointer=\"{_XPOINTER}\", got {child.get('xpointer')!r}")
        other = path.parent / child.get("href", "")
        try:
            rules += list(ElementTree.parse(other).getroot())
        except (OSError, ElementTree.ParseError) as error:
            raise PolicyError(f"{path}: {other}: {error}") from error
    return rules


def _add(rule: ElementTree.Element, profile: Profile, namespace: str, path: Path) -> None:
    if rule.tag not in RULES or not set(rule.attrib) <= set(RULES[rule.tag]):
        raise PolicyError(f"{path}: {profile.node}: unknown rule <{rule.tag} {dict(rule.attrib)}>")
    for permission, qualifier in rule.attrib.items():
        if qualifier not in ("ALLOW", "DENY"):
            raise PolicyError(f"{path}: {profile.node}: expected ALLOW or DENY, got {qualifier!r}")
        rules = profile.allowed if qualifier == "ALLOW" else profile.denied
        for item in rule:
            name = _full_name(item.text or "", namespace, profile.node)
            if rule.tag != "actions":
                rules.append((permission, name))
                continue
            for kind, parts in _ACTION_PARTS.items():
                rules += [(_ACTION_SIDES[permission][kind], f"{name}/_action/{part}") for part in parts]


def _full_name(name: str, namespace: str, node: str) -> str:
    name = name.strip()
    prefix = namespace if namespace.endswith("/") else namespace + "/"
    if name.startswith("~/"):
        return f"{prefix}{node}/{name[2:]}"
    return name if name.startswith("/") else prefix + name
