"""Compiled MuJoCo models kept between processes: compiling the arm's meshes takes seconds, reading them 50 ms."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path

import mujoco

log = logging.getLogger(__name__)


def cache_directory() -> Path:
    """`$XDG_CACHE_HOME/safe_policy` or `~/.cache/safe_policy`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "safe_policy"


def compiled_once(compile_model: Callable[[], mujoco.MjModel], sources: Iterable[str]) -> mujoco.MjModel:
    """The model that `compile_model` gives, from the cache when neither `sources` nor the versions changed.

    A damaged or unwritable cache costs time, never a failure.
    """
    digest = hashlib.sha256(f"{mujoco.__version__} {version('franky-sim')}".encode())
    for source in sources:
        digest.update(Path(source).read_bytes())
    path = cache_directory() / f"scene-{digest.hexdigest()[:16]}.mjb"
    if path.is_file():
        try:
            return mujoco.MjModel.from_binary_path(str(path))
        except ValueError as error:
            log.warning("%s: damaged (%s); compiling the model again", path, error)
    model = compile_model()
    partial = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        mujoco.mj_saveModel(model, str(partial), None)
        os.replace(partial, path)
    except OSError as error:
        log.info("%s: not kept (%s)", path, error)
    return model
