"""`safe-policy dspo` and `score`; `pretrain dspo` runs all stages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from safe_policy_core.commands import check_device, command_line, require_positive
from safe_policy_core.data.split_safe import read_truth
from safe_policy_core.methods.dspo.pipeline import DspoRun
from safe_policy_core.methods.dspo.scoring import discriminator_quality, score_episodes
from safe_policy_core.methods.overrides import override, preset


@dataclass
class Dspo:
    """One stage of DSPO. It goes on where it was interrupted, and needs the stages before it."""

    stage: tyro.conf.Positional[Literal["discriminator", "label", "diffusion", "generate", "clone", "quality"]]
    """discriminator, label, diffusion, generate, clone; or quality: the discriminator against the hidden costs."""

    data: Path
    """Folder made by `safe-policy dataset split-safe`."""

    out: Path
    """Folder of the run, the same for all stages."""

    preset: str = "small"
    """small, recalled or full."""

    set: tuple[str, ...] = ()
    """Single settings of the configuration: name=value ... (discriminator.steps=600)"""

    seed: int = 0
    device: str = "cpu"
    """Torch device."""

    checkpoint_every: int = 500
    """Gradient steps between checkpoints."""

    def run(self) -> dict[str, Any]:
        """Runs the stage. Returns what came of it."""
        require_positive(checkpoint_every=self.checkpoint_every)
        run = DspoRun(self.data, self.out, override(preset("dspo", self.preset), self.set), self.seed,
                      check_device(self.device), True, self.checkpoint_every, command_line())
        if self.stage == "quality":
            signals, safe = run.signals(), run.trajectories.safe
            return discriminator_quality(signals[~safe], read_truth(self.data)[~safe], signals[safe].min()).to_json()
        return run.run([self.stage])[self.stage]


@dataclass
class Score:
    """What a trained discriminator thinks of recorded episodes, for `safe-policy review`: worst first."""

    checkpoint: tyro.conf.Positional[Path]
    """Folder of a DSPO run, or of its stage discriminator."""

    data: Path
    """Folder of episode files (*.h5), folders in it included. The scores are written beside them. Episodes that the
    run was trained on are judged by the discriminator that has not seen them."""

    device: str = "cpu"
    """Torch device."""

    def run(self) -> dict[str, Any]:
        """Scores every episode. Returns the worst ones, and the files that could not be used."""
        stage = self.checkpoint / "discriminator"
        scored = score_episodes(stage if stage.is_dir() else self.checkpoint, self.data, check_device(self.device))
        worst = sorted(scored.scores, key=lambda score: score.score)[:10]
        return {"data": str(self.data), "episodes": len(scored.scores), "trained_on": scored.known,
                "skipped": scored.skipped, "worst": [{"name": score.name, "score": score.score} for score in worst]}
