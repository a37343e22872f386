"""Which weights may move the arm: those with a passing simulation replay, and what was fine-tuned from them."""

from __future__ import annotations

from pathlib import Path

from safe_policy_core import replay_report
from safe_policy_core.checkpoint import Manifest
from safe_policy_core.errors import CheckpointError


class Approval:
    """Remembers what was loaded while this process lives.

    Weights that fine-tuning made passed `WeightCheck` before they were saved, but no simulation has seen them: they
    may act where the weights that fine-tuning began with may, if those were loaded here before.
    """

    def __init__(self, required: bool) -> None:
        self._required = required
        self._loaded: dict[str, Path] = {}
        self._now, self._origin = "", ""

    def loaded(self, checkpoint: Path, manifest: Manifest) -> None:
        """These weights act from now on."""
        tuned = manifest["extra"].get("fine_tuning")
        self._now, self._origin = manifest["sha256"], tuned.get("origin", "") if isinstance(tuned, dict) else ""
        self._loaded[self._now] = checkpoint

    def require(self, task: str) -> str:
        """How the weights came to act in `task`, for the episode's metadata: passed, fine-tuned or overridden.

        Raises `CheckpointError` saying what to do when they may not act.
        """
        checkpoint = self._loaded[self._now]
        problem = replay_report.problem(checkpoint, task, self._now)
        if not problem:
            return "passed"
        if self._origin in self._loaded and \
                not replay_report.problem(self._loaded[self._origin], task, self._origin):
            return f"fine-tuned from {self._origin[:12]}, which passed"
        if not self._required:
            return f"overridden: {problem}"
        raise CheckpointError(f"{problem}; run `safe-policy replay --policy {checkpoint} --task {task}`, or set the "
                              "parameter require_replay to false, which every episode will then say")
