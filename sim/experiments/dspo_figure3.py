"""DSPO's Figure 3: what each discriminator makes of points in the plane of return and safety, as a picture."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from safe_policy_core.interfaces import Spec, Specs
from safe_policy_core.methods.dspo.config import DiscriminatorConfig, DspoConfig
from safe_policy_core.methods.dspo.discriminator_stage import DiscriminatorStage
from safe_policy_core.methods.dspo.scoring import discriminator_quality
from safe_policy_core.methods.dspo.trajectories import Trajectories
from safe_policy_core.training.offline import train_offline

SPECS = Specs({"vector": Spec("observation/vector", (2,))}, Spec("action", (1,), low=-1.0, high=1.0))
SETTINGS = DiscriminatorConfig(network="mlp", inputs="states", opposite="all", folds=1, layers=2, units=64, dropout=0.0,
                               length=1, batch=64, steps=300, return_weight=2.0, learning_rate=1e-3,
                               classifier_learning_rate=1e-2, classifier_steps=3)
VARIANTS = {"without return-agnostic learning": dataclasses.replace(SETTINGS, return_weight=0.0),
            "the same with gradient penalty": dataclasses.replace(SETTINGS, return_weight=0.0, gradient_penalty=10.0),
            "return-agnostic": SETTINGS}


@dataclass
class Figure3:
    """Trains three discriminators on points of which the safe demonstrations are safe and of high return."""

    demonstrations: int = 15
    unlabelled: int = 400
    seed: int = 0
    out: Path = Path("results/pictures/dspo_figure3.png")

    def run(self) -> dict[str, Any]:
        """Draws the picture. Returns the discriminators' recall, accuracy, F1 and correlation on the unlabelled."""
        rng = np.random.default_rng(self.seed)
        points = np.concatenate([rng.uniform([0.4, 0.2], 1, (self.demonstrations, 2)),
                                 rng.uniform(-1, 1, (self.unlabelled, 2))])
        data = as_trajectories(points, self.demonstrations)
        figure = Figure(figsize=(16, 4.2), layout="constrained")
        axes = figure.subplots(1, 1 + len(VARIANTS), sharey=True)
        _draw_points(axes[0], points, self.demonstrations)
        axes[0].set(title="data", ylabel="safety (above 0: safe)")
        axes[0].legend(loc="lower left", framealpha=1)
        found = {}
        for ax, (name, settings) in zip(axes[1:], VARIANTS.items(), strict=True):
            stage = trained(data, settings, self.seed)
            told = signals(stage, points)
            threshold = float(told[:self.demonstrations].min())
            quality = discriminator_quality(told[self.demonstrations:], points[self.demonstrations:, 1] > 0, threshold)
            found[name] = quality.to_json()
            self._draw(ax, stage, points, threshold)
            ax.set(title=f"{name}\nrecall {quality.recall:.2f}, correlation {quality.pearson:.2f}")
        for ax in axes:
            ax.set(xlabel="return", xlim=(-1, 1), ylim=(-1, 1))
        figure.colorbar(axes[-1].images[0], ax=axes, label="safety signal z")
        self.out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(self.out, dpi=90)
        return {"picture": str(self.out), **found}

    def _draw(self, ax: Any, stage: DiscriminatorStage, points: np.ndarray, threshold: float) -> None:
        line = np.linspace(-1, 1, 81)
        grid = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
        surface = signals(stage, grid).reshape(81, 81)
        ax.imshow(surface, origin="lower", extent=(-1, 1, -1, 1), vmin=0, vmax=1,
                  cmap="viridis", aspect="auto")
        ax.contour(line, line, surface, [threshold], colors="white")
        _draw_points(ax, points, self.demonstrations)


def as_trajectories(points: np.ndarray, demonstrations: int) -> Trajectories:
    """Trajectories of one step, whose state is the point and whose return its first number."""
    return Trajectories(points.astype(np.float32), np.zeros((len(points), 1), np.float32), np.arange(len(points) + 1),
                        points[:, 0], np.arange(len(points)) < demonstrations, SPECS, f"{points.sum():.9f}")


def trained(data: Trajectories, settings: DiscriminatorConfig, seed: int) -> DiscriminatorStage:
    stage = DiscriminatorStage(SPECS, DspoConfig(discriminator=settings), seed)
    stage.fit(data)
    train_offline(stage, stage.source(data), settings.steps, settings.batch, settings.length, seed,
                  progress=False)
    return stage


def signals(stage: DiscriminatorStage, points: np.ndarray) -> np.ndarray:
    """(N,) z of points."""
    return np.array([signal for signal, _ in stage.judge(as_trajectories(points, 0))])


def _draw_points(ax: Any, points: np.ndarray, demonstrations: int) -> None:
    rest = points[demonstrations:]
    for chosen, colour, label in ((rest[:, 1] > 0, "tab:cyan", "unlabelled, in truth safe"),
                                  (rest[:, 1] <= 0, "tab:red", "unlabelled, in truth unsafe")):
        ax.scatter(*rest[chosen].T, s=8, c=colour, label=label)
    ax.scatter(*points[:demonstrations].T, s=60, marker="*", c="gold", edgecolors="black", label="safe demonstrations")
