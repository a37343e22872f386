"""`safe-policy report DIR`: what a run did, as one page without outside references.

DIR holds one JSON file a stage, `<stage>.json` with {title, command, seconds, result}, as
`make demo` leaves them, and whatever those results point to (episodes, metrics, a video). A
stage that did not run is left out of the page, never invented.
"""

from __future__ import annotations

import datetime
import importlib
import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jinja2
import numpy as np
import tyro

from data_collection.report import figures
from safe_policy_core.data.episodes import Episode, read_episode
from safe_policy_core.errors import DatasetError

STAGES = ("graph", "teleoperate", "demonstrations", "pretrain", "before", "finetune", "after", "replay")
TESTS = (("before", "before fine-tuning"), ("after", "after fine-tuning"))
METRICS_SHOWN = 12


@dataclass
class Report:
    """Write DIR/report.html: rates with intervals, learning curves, frames, a video and the gate's figures."""

    directory: Annotated[Path, tyro.conf.Positional]
    """Folder of a run (one JSON file a stage, as `make demo` leaves it)."""
    out: Path | None = None
    """The page to write; DIR/report.html when not given."""
    landscape: Path | None = None
    """Instead of the page: how a SAS checkpoint sees its task from above, as the picture DIR/landscape-TASK.png."""
    landscape_task: str = "SafeReach"
    """SafeReach, or PointGoal1."""
    seed: int = 0
    """Of the landscape's episode."""
    generated: Path | None = None
    """Instead of the page: what the DSPO run DIR generated for SafeReach, as the picture DIR/generated.png and the film
    DIR/generated.gif, and how far its actions lead away from it in the simulator. This is the split of its data, whose
    demonstrations are played beside it."""

    def run(self) -> dict[str, Any]:
        if self.landscape is not None:
            # By name, as this folder does not depend on the simulators.
            picture = importlib.import_module("sim.landscape")
            target = self.out or self.directory / f"landscape-{self.landscape_task}.png"
            return picture.draw(self.landscape, self.landscape_task, self.seed, target)
        if self.generated is not None:
            played = importlib.import_module("sim.generated")
            return played.draw(self.directory, self.generated, self.out or self.directory / "generated.png")
        stages = load_stages(self.directory)
        target = self.out or self.directory / "report.html"
        target.write_text(render(self.directory, stages))
        return {"report": str(target), "bytes": target.stat().st_size, "stages": list(stages)}


def load_stages(directory: Path) -> dict[str, dict[str, Any]]:
    """The stages that ran, in order. Raises `DatasetError` when there is none or a file is not readable."""
    stages = {}
    for name in STAGES:
        path = directory / f"{name}.json"
        if path.exists():
            try:
                stages[name] = json.loads(path.read_text())
            except json.JSONDecodeError as error:
                raise DatasetError(f"{path}: not JSON ({error}); run its stage again") from error
    if not stages:
        raise DatasetError(f"{directory}: no stage found; expected one of {', '.join(s + '.json' for s in STAGES)}")
    return stages


def render(directory: Path, stages: dict[str, dict[str, Any]]) -> str:
    """The page's HTML."""
    results = {name: stages[name]["result"] if name in stages else {} for name in STAGES}
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True,
                                     undefined=jinja2.StrictUndefined)
    environment.filters["percent"] = lambda value: f"{100 * value:.0f}%"
    return environment.get_template("page.html").render(
        stages=stages, results=results, made=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        machine=f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}",
        rates=_rates(results), monitored=_monitored(results), reliability=_reliability(results),
        curves=_training_curves(directory, results), online=_online_curves(results), strips=_strips(results),
        paths=_paths(results), video=_video(results))


def _rate(summary: dict[str, Any], name: str) -> dict[str, float]:
    low, high = summary[f"{name}_interval"]
    return {"rate": summary[f"{name}_rate"], "low": low, "high": high}


def _rates(results: dict[str, Any]) -> str:
    rows = [(label, _rate(results[stage], "success"), _rate(results[stage], "violation"))
            for stage, label in TESTS if results[stage]]
    return figures.rates(rows) if rows else ""


def _monitored(results: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(label, summary) of the tests in which the policy said how likely a violation was."""
    return [(label, results[stage]) for stage, label in TESTS if results[stage].get("calibration")]


def _reliability(results: dict[str, Any]) -> str:
    rows = [(label, summary["calibration"]) for label, summary in _monitored(results)]
    return figures.reliability(rows) if rows else ""


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Rows of a log; a torn last line, left by a crash, is skipped."""
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def _training_curves(directory: Path, results: dict[str, Any]) -> str:
    log = results["pretrain"].get("log")
    rows = read_jsonl(Path(log)) if log and Path(log).exists() else []
    if len(rows) < 2:
        return ""
    names = [name for name in rows[-1] if name != "step" and isinstance(rows[-1][name], (int, float))]
    wanted = [name for name in names if "loss" in name] + [name for name in names if "loss" not in name]
    series = {name: ([row["step"] for row in rows if name in row], [row[name] for row in rows if name in row])
              for name in wanted[:METRICS_SHOWN]}
    return figures.curves(series, "gradient step")


def _online_curves(results: dict[str, Any]) -> str:
    episodes = results["finetune"].get("episodes", [])
    if not episodes:
        return ""
    index = list(range(1, len(episodes) + 1))
    cumulative = np.cumsum([bool(episode["violation"]) for episode in episodes]).tolist()
    series: dict[str, Any] = {
        "return": (index, [episode["episode_return"] for episode in episodes]),
        "steps": (index, [episode["steps"] for episode in episodes]),
        "violations so far": (index, cumulative)}
    shares = [episode.get("online_share") for episode in episodes]
    if all(share is not None for share in shares):
        series["share of the new policy"] = (index, shares)
    return figures.curves(series, "episode")


def _episode_files(results: dict[str, Any]) -> list[tuple[str, Path]]:
    """One teleoperated episode, the first and the last of the fine-tuning: those that people want to see."""
    found = []
    if teleoperated := results["teleoperate"].get("files", []):
        found.append(("teleoperated", Path(teleoperated[0])))
    recorded = [episode["path"] for episode in results["finetune"].get("episodes", []) if episode.get("path")]
    if recorded:
        found.append(("first fine-tuning episode", Path(recorded[0])))
        if len(recorded) > 1:
            found.append(("last fine-tuning episode", Path(recorded[-1])))
    return [(label, path) for label, path in found if path.exists()]


def _strips(results: dict[str, Any]) -> list[tuple[str, str]]:
    strips = []
    for label, path in _episode_files(results):
        images = read_episode(path).observations.get("image")
        if images is not None:
            strips.append((label, figures.png(figures.strip(images), scale=2)))
    return strips


def _paths(results: dict[str, Any]) -> str:
    files = [Path(f) for f in results["teleoperate"].get("files", [])]
    files += [Path(e["path"]) for e in results["finetune"].get("episodes", []) if e.get("path")]
    episodes: list[Episode] = [read_episode(path) for path in files if path.exists()]
    if not episodes:
        return ""
    limits = next((e.metadata["limits"] for e in episodes if e.metadata.get("limits")), None)
    low, high = (limits["workspace_low"], limits["workspace_high"]) if limits else ((0.375, -0.125), (0.625, 0.125))
    return figures.paths([(e.observations["pose"][:, :2], bool(e.reward.sum() > 0), bool(e.cost.sum() > 0))
                          for e in episodes], low, high)


def _video(results: dict[str, Any]) -> str:
    path = results["replay"].get("video")
    return figures.video(Path(path)) if path and Path(path).exists() else ""
