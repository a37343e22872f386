"""The Safety-Gymnasium experiment's results for people: tables beside the paper's numbers, and figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sim.experiments import safety_gymnasium_figures as figures
from sim.experiments.fosp_tables import DIRECT_ONLINE, TABLE_1, TABLE_2, TABLE_5

if TYPE_CHECKING:
    from sim.experiments.safety_gymnasium import Point, SafetyGymnasiumExperiment


def write(experiment: SafetyGymnasiumExperiment, points: Sequence[Point]) -> dict[str, str]:
    """Writes the tables and every figure for which there is something to show. Returns their paths by name."""
    results, name = experiment.results, experiment.name
    pictures = results / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    written = {"table": results / f"{name}.md"}
    written["table"].write_text(tables(points))
    if points:
        written["curves"] = figures.curves(pictures / f"{name}_curves.png", points)
    tasks = dict.fromkeys(run.offline_task for run in experiment.runs())
    folders = {task: experiment.data(task) for task in tasks if experiment.data(task).is_dir()}
    if folders:
        written["data"] = figures.distribution(pictures / f"{name}_data.png", folders)
    for run in experiment.runs():
        checkpoint, folder = experiment.offline(run), experiment.data(run.offline_task)
        if run.method == "fosp" and run.seed == experiment.seeds[0] and (checkpoint / "checkpoint").exists():
            picture = pictures / f"{name}_{run.offline_task}_{experiment.seen}_reconstructions.png"
            written[f"reconstructions {run.offline_task}"] = figures.reconstructions(picture, checkpoint, folder)
    return {key: str(path) for key, path in written.items()}


def tables(points: Sequence[Point]) -> str:
    """Markdown: the paper's Tables 1, 2 and 5 with what was reached beside them, and the transfers (Figure 5)."""
    return "\n".join([*_table_1(points), "", *_table_2(), "", *_table_5(points), "", *_transfers(points)]) + "\n"


def _table_1(points: Sequence[Point]) -> list[str]:
    lines = ["## Table 1: offline, then online in the same task", "",
             "Mean return and cost of an episode, offline → online. The paper: 64x64 pictures, 600 trajectories, 1M "
             "steps offline and 0.5M online, five seeds. Here as the columns say; \"-\" was not run.", "",
             "| task | method | paper: reward | paper: cost | reward | cost | seen | trajectories | gradient steps "
             "| environment steps online | tests | seeds |", "| --- " * 12 + "|"]
    own = {(point.task, point.method) for point in points if point.task == point.offline_task}
    pairs = [(task, method) for task, methods in TABLE_1.items() for method in methods]
    for task, method in [*pairs, *sorted(own - set(pairs))]:
        paper = TABLE_1.get(task, {}).get(method)
        cells = ["", ""] if paper is None else [f"{paper[0]:g} → {paper[1]:g}", f"{paper[2]:g} → {paper[3]:g}"]
        chosen = [point for point in points if (point.task, point.offline_task, point.method) == (task, task, method)]
        lines.append(f"| {task} | {method} | {' | '.join([*cells, *_ends(chosen)])} |")
    return lines


def _ends(points: Sequence[Point]) -> list[str]:
    """Reward, cost, and how far it got: from the first online point (the end of offline training) to the last."""
    if not points:
        return ["-"] * 8
    shown = [point for point in points if point.phase == "online"] or points
    first, last = _at(shown, min), _at(shown, max)
    return [f"{_mean(first, 'reward'):.1f} → {_mean(last, 'reward'):.1f}",
            f"{_mean(first, 'cost'):.1f} → {_mean(last, 'cost'):.1f}", last[0].seen, str(last[0].trajectories),
            f"{first[0].gradient_steps} + {last[0].gradient_steps - first[0].gradient_steps}",
            str(last[0].environment_steps), str(last[0].episodes), str(len(last))]


def _table_2() -> list[str]:
    lines = ["## Table 2: online alone (the paper's numbers; not run here)", "",
             "| task | method | reward | cost |", "| --- " * 4 + "|"]
    for task, methods in TABLE_2.items():
        lines += [f"| {task} | {name} | {reward:g} | {cost:g} |" for name, (reward, cost) in methods.items()]
        half, full = DIRECT_ONLINE[task]
        lines.append(f"| {task} | FOSP, direct online (Table 5), 0.5M / 1M steps | {half[0]:g} / {full[0]:g} "
                     f"| {half[1]:g} / {full[1]:g} |")
    return lines


def _table_5(points: Sequence[Point]) -> list[str]:
    lines = ["## Table 5: FOSP over the steps of fine-tuning", "",
             "| task | environment steps | paper: reward | paper: cost | reward | cost | cost regret |",
             "| --- " * 7 + "|"]
    for task, paper in TABLE_5.items():
        own = [point for point in points if (point.task, point.offline_task, point.method, point.phase)
               == (task, task, "fosp", "online")]
        for steps in sorted(paper.keys() | {point.environment_steps for point in own}):
            cells = [f"{number:g}" for number in paper[steps]] if steps in paper else ["", ""]
            found = [point for point in own if point.environment_steps == steps]
            lines.append(f"| {task} | {steps} | {' | '.join([*cells, *_measured(found)])} |")
    return lines


def _transfers(points: Sequence[Point]) -> list[str]:
    lines = ["## Figure 5: fine-tuning in another task (the paper gives curves, no numbers)", "",
             "| from → to | method | environment steps | reward | cost | cost regret |", "| --- " * 6 + "|"]
    moved = [point for point in points if point.task != point.offline_task]
    for source, task, method in dict.fromkeys((point.offline_task, point.task, point.method) for point in moved):
        own = [point for point in moved if (point.offline_task, point.task, point.method) == (source, task, method)]
        for steps in sorted({point.environment_steps for point in own}):
            found = [point for point in own if point.environment_steps == steps]
            lines.append(f"| {source} → {task} | {method} | {steps} | {' | '.join(_measured(found))} |")
    return lines


def _measured(points: Sequence[Point]) -> list[str]:
    if not points:
        return ["-"] * 3
    regrets = [point.cost_regret for point in points if point.cost_regret is not None]
    return [f"{_mean(points, 'reward'):.1f}", f"{_mean(points, 'cost'):.1f}",
            f"{np.mean(regrets):.4f}" if regrets else ""]


def _at(points: Sequence[Point], which: object) -> list[Point]:
    """Points of all seeds at the first or last place of the curve; which: min or max."""
    assert callable(which)
    place = which((point.gradient_steps, point.environment_steps) for point in points)
    return [point for point in points if (point.gradient_steps, point.environment_steps) == place]


def _mean(points: Sequence[Point], name: str) -> float:
    return float(np.mean([getattr(point, name) for point in points]))
