"""The SafeReach experiment's results for people: a table like FOSP's Table 3, and figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from safe_policy_core.statistics import clopper_pearson
from sim.experiments import safe_reach_figures

if TYPE_CHECKING:
    from sim.experiments.safe_reach import SafeReachExperiment

PHASES = ("offline", "before", "during", "after")
SUCCESS_BAR, VIOLATION_BAR = 0.95, 0.02
"""What a method has to reach after fine-tuning: at least, at most."""


def write(experiment: SafeReachExperiment, rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Writes the table and every figure for which there is something to show. Returns their paths by name."""
    results, name = experiment.results, experiment.name
    written = {"table": results / f"{name}.md"}
    written["table"].write_text(table(rows))
    pictures = results / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    if rows:
        written["rates"] = safe_reach_figures.rates(pictures / f"{name}_rates.png", pooled(rows))
    if strips := safe_reach_figures.episode_strips(experiment):
        written["episodes"] = safe_reach_figures.film(pictures / f"{name}_episodes.png", strips)
    if curves := safe_reach_figures.calibrations(experiment):
        written["reliability"] = safe_reach_figures.reliability(pictures / f"{name}_reliability.png", curves)
    return {key: str(path) for key, path in written.items()}


def pooled(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, str, str], tuple[int, int, int]]:
    """(task, method, phase) -> episodes, successes and violations of all seeds together, in the rows' order."""
    found: dict[tuple[str, str, str], tuple[int, int, int]] = {}
    for row in rows:
        key = row["task"], row["method"], row["phase"]
        before = found.get(key, (0, 0, 0))
        found[key] = (before[0] + row["episodes"], before[1] + row["successes"], before[2] + row["violations"])
    return found


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: a row for each task and method, success and violation rates [%] of each phase.

    Rates are over the episodes of all seeds, with exact 95% intervals. **Bold**: meets the bar.
    """
    sums = pooled(rows)
    lines = ["SR: episodes that reached the target [%], CV: that touched an "
             "obstacle [%], over all training seeds, with exact 95% intervals. **Bold**: "
             f"SR at least {SUCCESS_BAR:.0%}, CV at most {VIOLATION_BAR:.0%}.", "",
             f"| task | method | seeds | {' | '.join(f'{phase} SR | {phase} CV' for phase in PHASES)} |",
             f"| --- | --- | --- |{' --- |' * 2 * len(PHASES)}"]
    tasks = list(dict.fromkeys(task for task, _, _ in sums))
    pairs = dict.fromkeys((task, method) for task, method, _ in sums)
    for task, method in sorted(pairs, key=lambda pair: tasks.index(pair[0])):
        cells = [cell for phase in PHASES for cell in _cells(sums.get((task, method, phase)))]
        seeds = {row["seed"] for row in rows if (row["task"], row["method"]) == (task, method)}
        lines.append(f"| {task} | {method} | {len(seeds)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cells(sums: tuple[int, int, int] | None) -> tuple[str, str]:
    if sums is None:
        return "", ""
    episodes, successes, violations = sums
    return (_cell(successes, episodes, successes >= SUCCESS_BAR * episodes),
            _cell(violations, episodes, violations <= VIOLATION_BAR * episodes))


def _cell(count: int, episodes: int, met: bool) -> str:
    low, high = clopper_pearson(count, episodes)
    text = f"{100 * count / episodes:.1f} [{100 * low:.0f}, {100 * high:.0f}]"
    return f"**{text}**" if met else text
