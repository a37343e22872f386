"""Which decision transformer a SAS checkpoint stands on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safe_policy_core.checkpoint import Manifest, read_manifest
from safe_policy_core.errors import CheckpointError, ConfigurationError
from safe_policy_core.interfaces import Specs
from safe_policy_core.methods.configuration import from_json, to_json
from safe_policy_core.methods.registry import learner_class
from safe_policy_core.methods.sequence.learner import SequenceLearner
from safe_policy_core.methods.sequence.model import SequenceModel
from safe_policy_core.methods.sequence.policy import SequencePolicy

FIELD = "base"
"""In the `extra` of a SAS checkpoint's manifest."""


@dataclass(frozen=True)
class Base:
    """method: dt, cdt or qpt. config: its configuration. sha256: of its weights."""

    method: str
    config: Any
    sha256: str

    @classmethod
    def of_checkpoint(cls, directory: Path | str) -> Base:
        """The base that is in `directory`. Raises `ConfigurationError` for another kind of method."""
        manifest = read_manifest(directory)
        learner = learner_class(manifest["method"])
        if not issubclass(learner, SequenceLearner):
            raise ConfigurationError(f"base: expected a checkpoint of dt, cdt or qpt, {directory} is of "
                                     f"{manifest['method']!r}")
        return cls(manifest["method"], from_json(learner.config_class, manifest["config"]), manifest["sha256"])

    @classmethod
    def inside(cls, directory: Path | str, manifest: Manifest) -> Base:
        """The base of a SAS checkpoint. Raises `CheckpointError`."""
        content = manifest["extra"].get(FIELD)
        if not isinstance(content, dict) or content.keys() != {"method", "config", "sha256"}:
            raise CheckpointError(f"{directory}: extra.{FIELD}: expected method, config and sha256 of the base, got "
                                  f"{content!r:.60}")
        config = from_json(learner_class(content["method"]).config_class, content["config"], f"extra.{FIELD}.config")
        return cls(content["method"], config, content["sha256"])

    def to_json(self) -> dict[str, Any]:
        return {"method": self.method, "config": to_json(self.config), "sha256": self.sha256}

    def empty_model(self, specs: Specs) -> SequenceModel:
        """Its networks, whose weights are still to be loaded."""
        return learner_class(self.method).model_class(specs, self.config)

    def policy(self, model: SequenceModel, specs: Specs, device: Any) -> SequencePolicy:
        """It acting without alignment."""
        return learner_class(self.method).policy_class(model, specs, device)
