"""FOSP's checkpoints.

`save` keeps all tensors in their own type: "model.NAME", "optimiser.PART/PARAMETER/MOMENT" and "generator".

`export` keeps the model alone. What loading it means exactly: tensors of two or more dimensions
are stored as float16 (when `half`) and widened to float32; vectors and scalars keep their type;
the slow copies of critics and reachability are left out and become copies of their networks, as the
table map's network, which is left out, does of its slow copy; optimisers start afresh and the
random state is that of the seed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from safe_policy_core.checkpoint import Manifest, load_checkpoint, load_into, save_checkpoint
from safe_policy_core.errors import CheckpointError
from safe_policy_core.interfaces import Specs
from safe_policy_core.methods.configuration import from_json, to_json
from safe_policy_core.methods.fosp.config import FospConfig
from safe_policy_core.methods.fosp.model import FospModel

if TYPE_CHECKING:
    from safe_policy_core.methods.fosp.learner import FospLearner

_MODEL, _OPTIMISER, _GENERATOR = "model.", "optimiser.", "generator"
_SLOW = {"reward.critic.targets.": "reward.critic.networks.", "cost.critic.targets.": "cost.critic.networks.",
         "reachability.slow.": "reachability.network.", "table_map.network.": "table_map.slow."}


def _manifest(learner: FospLearner, kind: str) -> Manifest:
    return {"method": learner.method, "config": to_json(learner.config), "specs": learner.specs.to_json(),
            "step": learner.step, "seed": learner.seed,
            "extra": {"kind": kind, "online": learner.online, "expanded": learner.model.expanded}}


def save_learner_state(learner: FospLearner, directory: Path) -> None:
    """Writes everything that `load_learner_state` needs to continue exactly."""
    tensors = {_MODEL + name: tensor for name, tensor in learner.model.state_dict().items()}
    for part, optimiser in learner.optimisers.items():
        tensors |= {f"{_OPTIMISER}{part}/{name}": tensor for name, tensor in optimiser.tensors().items()}
    tensors[_GENERATOR] = learner.generator.get_state()
    save_checkpoint(directory, tensors, _manifest(learner, "learner"))


def export_model(learner: FospLearner, directory: Path, half: bool) -> None:
    """Writes the model alone, small."""
    tensors = {}
    for name, tensor in learner.model.state_dict().items():
        if not name.startswith(tuple(_SLOW)):
            tensors[_MODEL + name] = tensor.half() if half and tensor.dim() >= 2 else tensor
    save_checkpoint(directory, tensors, _manifest(learner, "export"))


def load_learner_state(learner: FospLearner, directory: Path) -> None:
    """Restores a checkpoint of either kind. Raises `CheckpointError` before anything has changed."""
    tensors, manifest = load_checkpoint(directory, method=learner.method, specs=learner.specs)
    given, mine = manifest["config"], to_json(learner.config)
    if different := sorted(name for name in given.keys() | mine.keys() if _plain(given.get(name)) != _plain(
            mine.get(name))):
        raise CheckpointError(f"{directory}: config.{different[0]}: expected {mine.get(different[0])}, the checkpoint "
                              f"has {given.get(different[0])}")
    extra = manifest["extra"]
    _restore(learner.model, tensors, extra, directory)
    learner.online, learner.step = bool(extra["online"]), manifest["step"]
    learner.optimisers = learner._make_optimisers()
    if extra["kind"] == "learner":
        _restore_optimisers(learner, tensors, directory)
        learner.generator.set_state(tensors[_GENERATOR])
    else:
        learner.generator.manual_seed(learner.seed)


def load_model(directory: Path, device: torch.device) -> tuple[FospModel, Specs]:
    """The model of a checkpoint of either kind, for acting."""
    tensors, manifest = load_checkpoint(directory, method="fosp")
    specs = Specs.from_json(manifest["specs"])
    model = FospModel(specs, from_json(FospConfig, manifest["config"])).to(device)
    _restore(model, tensors, manifest["extra"], directory)
    return model.eval().requires_grad_(False), specs


def _restore(model: FospModel, tensors: dict[str, Tensor], extra: dict[str, Any], directory: Path) -> None:
    kind = extra.get("kind")
    if kind not in ("learner", "export") or not isinstance(extra.get("expanded"), bool):
        raise CheckpointError(f"{directory}: extra.kind: expected learner or export, got {kind!r}")
    if extra["expanded"] and not model.expanded:
        model.expand()
    elif model.expanded and not extra["expanded"]:
        model.offline_actor = None
    expected = model.state_dict()
    given = {name.removeprefix(_MODEL): tensor for name, tensor in tensors.items() if name.startswith(_MODEL)}
    if kind == "export":
        for slow, source in _SLOW.items():
            given |= {slow + name.removeprefix(source): tensor for name, tensor in list(given.items())
                      if name.startswith(source)}
        given = {name: tensor.to(expected[name].dtype) if name in expected and tensor.dtype == torch.float16
                 else tensor for name, tensor in given.items()}
    try:
        load_into(model, given)
    except CheckpointError as error:
        raise CheckpointError(f"{directory}: {error}") from error


def _restore_optimisers(learner: FospLearner, tensors: dict[str, Tensor], directory: Path) -> None:
    if _GENERATOR not in tensors:
        raise CheckpointError(f"{directory}: {_GENERATOR}: missing")
    for part, optimiser in learner.optimisers.items():
        prefix = f"{_OPTIMISER}{part}/"
        try:
            optimiser.load({name.removeprefix(prefix): tensor for name, tensor in tensors.items()
                            if name.startswith(prefix)})
        except KeyError as error:
            raise CheckpointError(f"{directory}: {prefix}{error.args[0]}: unexpected in the checkpoint") from error


def _plain(value: Any) -> Any:
    """Tuples as the lists they become in JSON."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
