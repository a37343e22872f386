"""Worlds without the starry sky, and with plain colours in place of the textures that did not come with the package.

Safety-Gymnasium builds its world anew at every reset and decodes six large pictures of the sky each time: 1.7 s of
computing where an episode of 500 steps takes 0.5 s. Nothing but pictures depends on them. The pictures of the Race
tasks (floor, bushes, walls) are missing from version 1.0.0 altogether.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

PLAIN = {"@type": "skybox", "@builtin": "flat", "@rgb1": "0 0 0", "@width": 8, "@height": 48}
COLOURS = {"village_floor": "0.55 0.53 0.5", "bush": "0.13 0.4 0.13", "flower_bush": "0.6 0.2 0.4",
           "bamboo_wall": "0.7 0.6 0.3", "cliff1": "0.35 0.3 0.28", "cliff2": "0.35 0.3 0.28",
           "cliff3": "0.4 0.38 0.36", "wooden_door1": "0.45 0.28 0.12"}
"""Of the textures that are missing [red, green, blue in 0 to 1]."""


@contextmanager
def assets(starry: bool) -> Iterator[None]:
    """Worlds that are built inside have their missing textures, and a black sky unless `starry`."""
    from safety_gymnasium import world

    original = world.yaml
    # The module reads its assets by yaml.load(file, Loader=yaml.FullLoader) whenever it builds.
    world.yaml = SimpleNamespace(load=lambda file, Loader: _assets(Path(file.name), starry), FullLoader=None)
    try:
        yield
    finally:
        world.yaml = original


@cache
def _assets(path: Path, starry: bool) -> dict[str, Any]:
    content = yaml.safe_load(path.read_text())
    flat = {name: {"@name": name, "@type": "2d", "@builtin": "flat", "@rgb1": colour, "@width": 8, "@height": 8}
            for name, colour in COLOURS.items()}
    sky = {} if starry else {"skybox": PLAIN}
    return content | {"textures": content["textures"] | flat | sky}
