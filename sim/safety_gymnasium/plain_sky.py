"""Worlds without the starry sky, for tasks without pictures.

Safety-Gymnasium builds its world anew at every reset and decodes six large pictures of the sky each time: 1.7 s of
computing where an episode of 500 steps takes 0.5 s. Nothing but pictures depends on them.
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


@contextmanager
def plain_sky() -> Iterator[None]:
    """Worlds that are built inside have a black sky."""
    from safety_gymnasium import world

    original = world.yaml
    # The module reads its assets by yaml.load(file, Loader=yaml.FullLoader) whenever it builds.
    world.yaml = SimpleNamespace(load=lambda file, Loader: _assets(Path(file.name)), FullLoader=None)
    try:
        yield
    finally:
        world.yaml = original


@cache
def _assets(path: Path) -> dict[str, Any]:
    assets = yaml.safe_load(path.read_text())
    return assets | {"textures": assets["textures"] | {"skybox": PLAIN}}
