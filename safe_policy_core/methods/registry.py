"""Every method under its name: making learners, and loading learners and policies from checkpoints.

A learner class is built as `Class(specs, config, seed, device)` and has the class attribute
`config_class` (a dataclass whose defaults are the small preset) and the class method
`load_policy(directory, device)`. Modules are imported at the first use of their method.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

from safe_policy_core.checkpoint import Manifest, read_manifest
from safe_policy_core.errors import CheckpointError, ConfigurationError
from safe_policy_core.interfaces import Learner, Policy, Specs
from safe_policy_core.methods.configuration import from_json

METHODS: dict[str, str] = {
    "fosp": "safe_policy_core.methods.fosp.learner:FospLearner",
    "bc": "safe_policy_core.methods.bc.learner:BcLearner",
    "dt": "safe_policy_core.methods.sequence.dt:DtLearner",
    "cdt": "safe_policy_core.methods.sequence.cdt:CdtLearner",
    "cdt_v": "safe_policy_core.methods.sequence.cdt_v:CdtVLearner",
    "qpt": "safe_policy_core.methods.qpt.learner:QptLearner",
    "sas": "safe_policy_core.methods.sas.learner:SasLearner",
    "dspo": "safe_policy_core.methods.dspo.learner:DspoLearner",
    "dreamer": "safe_policy_core.methods.dreamer.learner:DreamerLearner",
    "safe_dreamer": "safe_policy_core.methods.safe_dreamer.learner:SafeDreamerLearner",
    "recovery_rl": "safe_policy_core.methods.recovery_rl.learner:RecoveryRlLearner",
    "bcq_lag": "safe_policy_core.methods.offline.bcq_lag:BcqLagLearner",
    "bear_lag": "safe_policy_core.methods.offline.bear_lag:BearLagLearner",
    "cpq": "safe_policy_core.methods.offline.cpq:CpqLearner",
    "coptidice": "safe_policy_core.methods.offline.coptidice:CoptidiceLearner",
    "fisor": "safe_policy_core.methods.offline.fisor:FisorLearner",
    "td3_bc": "safe_policy_core.methods.offline.td3_bc:Td3BcLearner",
    "iql": "safe_policy_core.methods.offline.iql:IqlLearner",
    "cql": "safe_policy_core.methods.offline.cql:CqlLearner",
    "dwbc": "safe_policy_core.methods.offline.dwbc:DwbcLearner",
    "rgm": "safe_policy_core.methods.offline.rgm:RgmLearner",
}
"""Name -> "module:LearnerClass"."""


def learner_class(name: str) -> Any:
    """The learner class of a method. Raises `ConfigurationError` for an unknown name."""
    if name not in METHODS:
        raise ConfigurationError(f"method: unknown name {name!r}, expected one of {sorted(METHODS)}")
    module, _, attribute = METHODS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def config_module(name: str) -> ModuleType:
    """The module `config` beside the learner's. Raises `ConfigurationError` for an unknown name."""
    if name not in METHODS:
        raise ConfigurationError(f"method: unknown name {name!r}, expected one of {sorted(METHODS)}")
    return importlib.import_module(METHODS[name].partition(":")[0].rpartition(".")[0] + ".config")


def make_learner(name: str, specs: Specs, config: Any = None, seed: int = 0, device: str = "cpu") -> Learner:
    """A new learner. `config` is the method's dataclass, or None for its defaults."""
    found = learner_class(name)
    return found(specs, found.config_class() if config is None else config, seed, device)


def load_learner(directory: Path | str, device: str = "cpu") -> Learner:
    """The learner of a checkpoint, ready to continue. Raises `CheckpointError` naming what does not fit."""
    directory = Path(directory)
    manifest = read_manifest(directory)
    found = _class_of(directory, manifest)
    learner = found(Specs.from_json(manifest["specs"]), from_json(found.config_class, manifest["config"]),
                    int(manifest["seed"]), device)
    learner.load(directory)
    return learner


def load_policy(directory: Path | str, device: str = "cpu") -> Policy:
    """The policy of a learner's checkpoint or of an exported one. Raises `CheckpointError`."""
    directory = Path(directory)
    manifest = read_manifest(directory)
    return _class_of(directory, manifest).load_policy(directory, device)


def _class_of(directory: Path, manifest: Manifest) -> Any:
    if manifest["method"] not in METHODS:
        raise CheckpointError(f"{directory}: method: the checkpoint is of {manifest['method']!r}, "
                              f"expected one of {sorted(METHODS)}")
    return learner_class(manifest["method"])
