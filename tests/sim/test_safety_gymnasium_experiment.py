"""FOSP's simulation tasks as an experiment: curves, cost regret, resuming and tables, on commands that are recorded."""

from __future__ import annotations

import csv
import json
import subprocess
import types
from pathlib import Path
from typing import Any

import pytest

from safe_policy_core.errors import ConfigurationError
from sim.experiments import safety_gymnasium_figures, stages
from sim.experiments.fosp_tables import TABLE_1, TABLE_5
from sim.experiments.safety_gymnasium import COLUMNS, Point, SafetyGymnasiumExperiment, cost_regret
from sim.experiments.safety_gymnasium_report import tables
from sim.experiments.stages import StageFailed

DECISIONS = 250


class Recorder:
    """Stands in for the processes of `safe-policy`: keeps their arguments, answers as they would.

    The n-th test has a mean cost of n; a fine-tuning episode costs 5.
    """

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.fail_at = "nothing"
        self.tests = 0

    def __call__(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        arguments = command[3:-1]
        self.calls.append(arguments)
        if self.fail_at in arguments:
            return subprocess.CompletedProcess(command, 2, json.dumps({"error": "no space left"}))
        result: dict[str, Any] = {}
        if arguments[0] == "evaluate":
            self.tests += 1
            count = self.value(arguments, "--episodes")
            result = {"episodes": count, "steps": count * DECISIONS, "reward": 2.0 * self.tests, "cost": self.tests,
                      "violation_rate": 0.5}
        elif arguments[0] == "finetune":
            count = self.value(arguments, "--episodes")
            result = {"steps": count * DECISIONS, "total_cost": 5.0 * count,
                      "updates": count * self.value(arguments, "--updates")}
        return subprocess.CompletedProcess(command, 0, json.dumps(result) + "\n")

    @staticmethod
    def value(arguments: list[str], name: str) -> int:
        return int(arguments[arguments.index(name) + 1])

    def words(self, first: str) -> list[list[str]]:
        return [call for call in self.calls if call[0] == first]


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    found = Recorder()
    monkeypatch.setattr(stages, "subprocess", types.SimpleNamespace(run=found, PIPE=subprocess.PIPE))
    return found


def experiment(folder: Path, **changes: Any) -> SafetyGymnasiumExperiment:
    base: dict[str, Any] = {"tasks": ("PointGoal1",), "transfers": (), "steps": 100, "steps_points": 2, "episodes": 4,
                            "episodes_points": 2, "tests": 3, "updates": 7}
    return SafetyGymnasiumExperiment(**(base | changes), out=folder / "runs", results=folder / "results")


def rows(written: dict[str, Any]) -> list[dict[str, str]]:
    with Path(written["csv"]).open() as file:
        return list(csv.DictReader(file))


def test_cost_regret_by_hand() -> None:
    # Ten decisions are forty environment steps; costs of 3, 0 and 5 came in them.
    assert cost_regret(3 + 0 + 5, 10) == pytest.approx(0.2)


def test_a_curve_has_its_points_in_order_with_the_regret_so_far(recorder: Recorder, tmp_path: Path) -> None:
    found = rows(experiment(tmp_path).run())
    assert list(found[0]) == COLUMNS
    places = [(row["phase"], int(row["gradient_steps"]), int(row["environment_steps"])) for row in found]
    assert places == [("offline", 50, 0), ("offline", 100, 0), ("online", 100, 0), ("online", 114, 2000),
                      ("online", 128, 4000)]
    # Offline: 3 tests of mean cost 1, then 3 of mean cost 2, each of 1000 environment steps: (3 + 6) / 6000.
    # Online: 5 in every episode of 1000 steps.
    assert [row["cost_regret"] for row in found] == ["0.001", "0.0015", "", "0.005", "0.005"]
    # The end of offline training is where fine-tuning begins; nothing was tested twice.
    assert found[1]["cost"] == found[2]["cost"] == "2"
    assert len(recorder.words("evaluate")) == 4


def test_parts_of_a_curve_go_on_with_the_part_before(recorder: Recorder, tmp_path: Path) -> None:
    experiment(tmp_path).run()
    for word in ("pretrain", "finetune"):
        assert ["--resume" in call for call in recorder.words(word)] == [False, True]
    assert [recorder.value(call, "--steps") for call in recorder.words("pretrain")] == [50, 100]
    assert [recorder.value(call, "--episodes") for call in recorder.words("finetune")] == [2, 4]
    tested = {seed + index for call in recorder.words("evaluate") for seed in [recorder.value(call, "--seed")]
              for index in range(3)}
    tuned = recorder.value(recorder.words("finetune")[0], "--seed")
    assert not tested & set(range(tuned, tuned + 4))


def test_a_transfer_shares_the_offline_training_and_is_tested_in_its_own_task(recorder: Recorder, tmp_path: Path
                                                                              ) -> None:
    found = rows(experiment(tmp_path, transfers=("PointGoal1:PointGoal2",)).run())
    assert len(recorder.words("pretrain")) == 2
    assert len(recorder.words("collect")) == 1
    moved = [row for row in found if row["task"] == "PointGoal2"]
    assert [(row["phase"], row["environment_steps"], row["offline_task"]) for row in moved] == [
        ("online", steps, "PointGoal1") for steps in ("0", "2000", "4000")]
    assert [call[2] for call in recorder.words("finetune")] == ["PointGoal1-state"] * 2 + ["PointGoal2-state"] * 2
    assert {call[call.index("--data") + 1] for call in recorder.words("finetune")} == {
        str(tmp_path / "runs/data/PointGoal1-state_120")}


def test_goes_on_where_it_stopped_and_keeps_what_was_reached(recorder: Recorder, tmp_path: Path) -> None:
    recorder.fail_at = "finetune"
    with pytest.raises(StageFailed, match=r"1 runs stopped.*no space left"):
        experiment(tmp_path).run()
    assert len((tmp_path / "results/safety_gymnasium.csv").read_text().splitlines()) == 1 + 3
    before, recorder.fail_at = len(recorder.calls), "nothing"
    session = tmp_path / "runs/PointGoal1-state/fosp/seed_0/online_PointGoal1/session.json"
    session.parent.mkdir()
    session.touch()
    experiment(tmp_path).run()
    assert [call[0] for call in recorder.calls[before:]] == ["finetune", "evaluate"] * 2
    assert ["--resume" in call for call in recorder.calls[before:]] == [True, False] * 2
    count = len(recorder.calls)
    experiment(tmp_path).run()
    assert len(recorder.calls) == count


def test_unknown_names_and_counts(tmp_path: Path) -> None:
    for message, changes in {"methods: unknown 'ppo'": {"methods": ("ppo",)},
                             "tasks: unknown 'PointGoal9'": {"tasks": ("PointGoal9",)},
                             "tasks: unknown ''": {"transfers": ("PointGoal1",)},
                             "tests: expected at least 1": {"tests": 0}}.items():
        with pytest.raises(ConfigurationError, match=message):
            experiment(tmp_path, **changes).run()


def test_tables_stand_beside_the_papers_numbers() -> None:
    known = {"method": "fosp", "offline_task": "PointGoal1", "seen": "state", "trajectories": 120, "episodes": 3,
             "violation_rate": 0.5}
    points = [Point(**known, task=task, phase=phase, seed=seed, gradient_steps=gradient, environment_steps=steps,
                    reward=reward + seed, cost=4.0, cost_regret=regret)
              for seed in (0, 2)
              for task, phase, gradient, steps, reward, regret in (
                  ("PointGoal1", "offline", 50, 0, 1.0, 0.1), ("PointGoal1", "online", 100, 0, 2.0, None),
                  ("PointGoal1", "online", 150, 20_000, 6.0, 0.02), ("PointGoal2", "online", 100, 0, 3.0, None))]
    text = tables(points)
    assert ("| PointGoal1 | fosp | 18.7 → 21.5 | 1.4 → 0.2 | 3.0 → 7.0 | 4.0 → 4.0 | state | 120 | 100 + 50 | 20000 "
            "| 3 | 2 |") in text
    assert "| PointButton1 | fosp | 14.7 → 18.1 | 9.5 → 2.1 | - |" in text
    assert "| PointGoal1 | 20000 | 18.692 | 3.4 | 7.0 | 4.0 | 0.0200 |" in text
    assert "| PointGoal1 | CPO | 22.3 | 45 |" in text
    assert "| PointGoal1 → PointGoal2 | fosp | 0 | 4.0 | 4.0 |  |" in text


def test_the_papers_tables_agree_with_each_other() -> None:
    """Table 5 begins and ends where Table 1 does, which the paper rounds either way, up to slips of 0.2."""
    for task, methods in TABLE_1.items():
        first, last = TABLE_5[task][0], TABLE_5[task][500_000]
        assert methods["fosp"] == pytest.approx((first[0], last[0], first[1], last[1]), abs=0.2)


def test_curves_are_drawn_for_any_stage_of_a_run(tmp_path: Path) -> None:
    first = Point("fosp", "PointGoal1", "PointGoal1", "state", "offline", 0, 120, 50, 0, 3, 1.0, 2.0, 0.5, 0.1)
    moved = Point("fosp", "PointGoal1", "PointGoal2", "state", "online", 0, 120, 50, 0, 3, 1.0, 2.0, 0.5, None)
    for index, points in enumerate(([first], [first, moved])):
        assert safety_gymnasium_figures.curves(tmp_path / f"{index}.png", points).stat().st_size > 1000
