"""Checkpoints: `model.safetensors` and `manifest.json` in one folder, replaced as a whole.

Loading is strict: whatever is missing, unexpected, damaged or made for something else is named
in a `CheckpointError`. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from safe_policy_core import __version__
from safe_policy_core.errors import CheckpointError
from safe_policy_core.interfaces import Specs

WEIGHTS, MANIFEST = "model.safetensors", "manifest.json"
RUN_FOLDER = "checkpoint"
"""Where a training run keeps its checkpoint inside its own folder."""


class _Required(TypedDict):
    method: str
    config: dict[str, Any]
    specs: dict[str, Any]


class Manifest(_Required, total=False):
    """What a checkpoint is.

    method: name in the registry. config: the method's configuration. specs: `Specs.to_json()`.
    step: gradient steps taken. seed. data_hash: of the episodes it learned from. command: what
    made it. extra: the method's and the trainer's own JSON. Written by `save_checkpoint`:
    sha256 of the weights file and software_version.
    """

    step: int
    seed: int
    data_hash: str
    command: str
    extra: dict[str, Any]
    sha256: str
    software_version: str


_FIELDS: dict[str, type] = {"method": str, "config": dict, "specs": dict, "step": int, "seed": int, "data_hash": str,
                            "command": str, "extra": dict, "sha256": str, "software_version": str}


def save_checkpoint(directory: Path | str, tensors: Mapping[str, Tensor], manifest: Manifest) -> str:
    """Writes a checkpoint, replacing the one in `directory` as a whole. Returns the weights' SHA-256.

    `manifest` needs method, config and specs; the other fields default to zero and empty. A crash
    at any point leaves a complete checkpoint, the old one or the new. Raises `CheckpointError`
    for weights that are not finite: they would never act again.
    """
    directory = Path(directory).resolve()
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise CheckpointError(f"{directory}: {name}: weights are not finite; not saved")
    # A copy each, because tensors that share memory are not accepted.
    weights = save_tensors({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()})
    specs = manifest["specs"]
    content: dict[str, Any] = {"step": 0, "seed": 0, "data_hash": "", "command": "", "extra": {}}
    content |= manifest
    content |= {"specs": specs.to_json() if isinstance(specs, Specs) else specs,
                "sha256": hashlib.sha256(weights).hexdigest(), "software_version": __version__}
    _check_fields(directory, content)
    partial = directory.with_name(f".{directory.name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _write(partial / WEIGHTS, weights)
        _write(partial / MANIFEST, json.dumps(content, indent=1, allow_nan=False).encode())
        replace_directory(partial, directory)
    except OSError as error:
        raise CheckpointError(f"{directory}: cannot be written ({error})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return content["sha256"]


def replace_directory(source: Path, target: Path) -> None:
    """Moves the folder `source` to `target`, whose old content goes.

    Between the two renames the old folder is kept under a name that `load_checkpoint` falls back to.
    """
    _sync(source)
    previous = _previous(target)
    if target.exists():
        shutil.rmtree(previous, ignore_errors=True)
        os.rename(target, previous)
    os.rename(source, target)
    _sync(target.parent)
    shutil.rmtree(previous, ignore_errors=True)


def annotate_checkpoint(directory: Path | str, **fields: Any) -> None:
    """Changes fields of a manifest atomically; `extra` is merged. Raises `CheckpointError`."""
    folder = find_checkpoint(directory)
    old = _read_manifest(folder)
    content = {**old, **fields, "extra": old["extra"] | fields.get("extra", {})}
    _check_fields(folder, content)
    partial = folder / f".{MANIFEST}.tmp"
    _write(partial, json.dumps(content, indent=1, allow_nan=False).encode())
    os.replace(partial, folder / MANIFEST)
    _sync(folder)


def find_checkpoint(directory: Path | str) -> Path:
    """The folder that holds the manifest: `directory`, its `checkpoint`, or what a crash left of either.

    Raises `CheckpointError` when there is none.
    """
    directory = Path(directory)
    for folder in (directory, directory / RUN_FOLDER):
        for candidate in (folder, _previous(folder)):
            if (candidate / MANIFEST).is_file():
                return candidate
    if not directory.exists():
        raise CheckpointError(f"{directory}: no such checkpoint folder")
    raise CheckpointError(f"{directory}: {MANIFEST} is missing; expected a checkpoint folder with "
                          f"{WEIGHTS} and {MANIFEST}")


def read_manifest(directory: Path | str) -> Manifest:
    """The manifest alone, without reading weights. Raises `CheckpointError`."""
    return _read_manifest(find_checkpoint(directory))


def load_checkpoint(directory: Path | str, *, method: str | None = None, specs: Specs | None = None
                    ) -> tuple[dict[str, Tensor], Manifest]:
    """Tensors on the CPU and the manifest. Raises `CheckpointError` naming the field that does not fit.

    method, specs: what the caller needs the checkpoint to be for; None accepts any.
    """
    folder = find_checkpoint(directory)
    manifest = _read_manifest(folder)
    if method is not None and manifest["method"] != method:
        raise CheckpointError(f"{directory}: method: expected {method!r}, the checkpoint is of {manifest['method']!r}")
    if specs is not None:
        try:
            difference = specs.difference(Specs.from_json(manifest["specs"]))
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"{directory}: specs: malformed ({error!r})") from error
        if difference:
            raise CheckpointError(f"{directory}: made for other specs: {difference} (expected against checkpoint)")
    try:
        weights = (folder / WEIGHTS).read_bytes()
    except OSError as error:
        raise CheckpointError(f"{directory}: {WEIGHTS}: cannot be read ({error.strerror})") from error
    if (actual := hashlib.sha256(weights).hexdigest()) != manifest["sha256"]:
        raise CheckpointError(f"{directory}: {WEIGHTS}: sha256 is {actual[:12]}, the manifest says "
                              f"{manifest['sha256'][:12]}; the file was altered or damaged, use another copy")
    try:
        return load_tensors(weights), manifest
    except SafetensorError as error:
        raise CheckpointError(f"{directory}: {WEIGHTS}: not a safetensors file ({error})") from error


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], prefix: str = "") -> None:
    """Copies the tensors named `prefix` + parameter name into a module, strictly.

    Raises `CheckpointError` naming the first missing, unexpected or ill-fitting tensor; the module
    is then unchanged.
    """
    expected = module.state_dict()
    given = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    if missing := sorted(expected.keys() - given.keys()):
        raise CheckpointError(f"{prefix}{missing[0]}: missing from the checkpoint ({len(missing)} missing)")
    if extra := sorted(given.keys() - expected.keys()):
        raise CheckpointError(f"{prefix}{extra[0]}: unexpected in the checkpoint ({len(extra)} unexpected)")
    for name, tensor in given.items():
        mine = expected[name]
        if tensor.shape != mine.shape or tensor.dtype != mine.dtype:
            raise CheckpointError(f"{prefix}{name}: expected {tuple(mine.shape)} {mine.dtype}, the checkpoint has "
                                  f"{tuple(tensor.shape)} {tensor.dtype}")
    module.load_state_dict(given)


def _read_manifest(folder: Path) -> Manifest:
    try:
        content = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder}: {MANIFEST}: cannot be read ({error})") from error
    _check_fields(folder, content)
    return content


def _check_fields(folder: Path, content: Any) -> None:
    if not isinstance(content, dict):
        raise CheckpointError(f"{folder}: {MANIFEST}: expected an object, got {type(content).__name__}")
    for name, kind in _FIELDS.items():
        if name not in content:
            raise CheckpointError(f"{folder}: {MANIFEST}: {name}: missing")
        if not isinstance(content[name], kind) or isinstance(content[name], bool):
            raise CheckpointError(f"{folder}: {MANIFEST}: {name}: expected {kind.__name__}, got {content[name]!r:.60}")
    if extra := sorted(content.keys() - _FIELDS.keys()):
        raise CheckpointError(f"{folder}: {MANIFEST}: {extra[0]}: unexpected field")


def _previous(folder: Path) -> Path:
    return folder.resolve().with_name(f".{folder.name}.previous")


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
