"""Everything that can be done on the page, with its key; the page's help is made of this table."""

from __future__ import annotations

from typing import NamedTuple


class Key(NamedTuple):
    """key: as browsers name it, with "Shift+" or "Ctrl+" before it. command: what it does. help: for people."""

    key: str
    command: str
    help: str


KEYS = (
    Key("ArrowRight", "forward", "next frame; with Shift, select on the way"),
    Key("ArrowLeft", "back", "frame before; with Shift, select on the way"),
    Key("Shift+ArrowRight", "select_forward", ""),
    Key("Shift+ArrowLeft", "select_back", ""),
    Key("Home", "first", "first frame"),
    Key("End", "last", "last frame"),
    Key(" ", "play", "play, stop"),
    Key("ArrowDown", "next", "next episode"),
    Key("ArrowUp", "previous", "episode before"),
    Key("j", "next", ""),
    Key("k", "previous", ""),
    Key("1", "reward", "reward on or off, in the selection or this frame"),
    Key("2", "cost", "cost on or off, in the selection or this frame"),
    Key("c", "take_suggestion", "take the suggested cost (hatched)"),
    Key("Shift+C", "first_contact", "contact begins in this frame: cost until the obstacle is at rest"),
    Key("a", "accept", "accept the episode and go on"),
    Key("r", "reject", "reject the episode and go on"),
    Key("o", "reopen", "neither accepted nor rejected"),
    Key("n", "note", "write a note; Esc leaves it"),
    Key("u", "undo", "undo what you did last"),
    Key("Ctrl+z", "undo", ""),
    Key("f", "filter", "next filter"),
    Key("s", "sort", "next order"),
    Key("/", "search", "search by name or task; Esc leaves it"),
    Key("Escape", "deselect", "forget the selection"),
    Key("?", "help", "this help"),
)


def shown(key: str) -> str:
    """A key for people, with the others that do the same."""
    return {" ": "Space", "ArrowRight": "→", "ArrowLeft": "←", "ArrowDown": "↓ j", "ArrowUp": "↑ k", "u": "u, Ctrl+z",
            "Escape": "Esc"}.get(key, key)
