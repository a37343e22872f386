"""The SafeReach experiment: its stages, resuming, rows, table and figures, on commands that are recorded, not run."""

from __future__ import annotations

import csv
import json
import subprocess
import types
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest

from safe_policy_core.errors import ConfigurationError
from safe_policy_core.methods.overrides import override, preset
from sim.experiments import safe_reach_figures, stages
from sim.experiments.contestants import CONTESTANTS
from sim.experiments.safe_reach import SafeReachExperiment
from sim.experiments.safe_reach_figures import FAILURE, SUCCESS, VIOLATION, Strip
from sim.experiments.safe_reach_report import table
from sim.experiments.stages import Stage, StageFailed, last_object, run_stage


class Recorder:
    """Stands in for the processes of `safe-policy`: keeps their arguments, answers as they would."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.fail_at = ""

    def __call__(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        arguments = command[3:-1]
        self.calls.append(arguments)
        if self.fail_at and self.fail_at in " ".join(arguments):
            return subprocess.CompletedProcess(command, 2, json.dumps({"error": "no space left"}))
        count = int(arguments[arguments.index("--episodes") + 1]) if "--episodes" in arguments else 0
        rows = [{"success": index > 0, "violation": index == 1} for index in range(count)]
        curve = {"bins": [{"low": 0.0, "high": 0.1, "count": 10, "predicted": 0.05, "observed": 0.0}], "error": 0.05,
                 "brier": 0.0025}
        key = "episodes" if arguments[0] == "finetune" else "rows"
        return subprocess.CompletedProcess(command, 0, f"noise\n{json.dumps({key: rows, 'calibration': curve})}\n")

    def words(self, first: str) -> list[list[str]]:
        return [call for call in self.calls if call[0] == first]


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    found = Recorder()
    monkeypatch.setattr(stages, "subprocess", types.SimpleNamespace(run=found, PIPE=subprocess.PIPE))
    monkeypatch.setattr(safe_reach_figures, "episode_strips", lambda experiment: [])
    return found


def experiment(folder: Path, **changes: Any) -> SafeReachExperiment:
    base = {"methods": ("fosp", "bc_safe"), "tasks": ("more_obstacles",), "seeds": (0, 1), "tests": 4, "episodes": 3}
    return SafeReachExperiment(**(base | changes), out=folder / "runs", results=folder / "results")


class TestProtocol:
    def test_stages_in_order_and_rows_in_the_issues_columns(self, recorder: Recorder, tmp_path: Path) -> None:
        written = experiment(tmp_path).run()
        assert [call[0] for call in recorder.calls[:8]] == [
            "collect", "pretrain", "evaluate", "evaluate", "finetune", "evaluate", "pretrain", "evaluate"]
        with Path(written["csv"]).open() as file:
            lines = file.read().splitlines()
        assert lines[:5] == ["method,task,phase,seed,episodes,successes,violations",
                             "fosp,original,offline,0,4,3,1", "fosp,more_obstacles,before,0,4,3,1",
                             "fosp,more_obstacles,during,0,3,2,1", "fosp,more_obstacles,after,0,4,3,1"]
        phases = [row["phase"] for row in csv.DictReader(lines) if row["method"] == "bc_safe"]
        assert phases == ["offline", "before"] * 2  # cloning does not learn online
        for name in ("table", "rates", "reliability"):
            assert Path(written[name]).stat().st_size > 0

    def test_all_methods_get_the_same_data_and_scenes_and_no_scene_is_used_twice(self, recorder: Recorder,
                                                                              tmp_path: Path) -> None:
        experiment(tmp_path, methods=("fosp", "safe_dreamer", "dreamer", "recovery_rl", "bc_all", "bc_safe")).run()
        assert len(recorder.words("collect")) == 1
        assert len({call[call.index("--data") + 1] for call in recorder.words("pretrain")}) == 1
        scenes: dict[str, set[int]] = {}
        for call in recorder.calls:
            if call[0] in ("evaluate", "finetune"):
                first, count = (int(call[call.index(name) + 1]) for name in ("--seed", "--episodes"))
                scenes.setdefault(call[0], set()).update(range(first, first + count))
        assert scenes["evaluate"] == {0, 1, 2, 3, 1000, 1001, 1002, 1003}
        assert not scenes["evaluate"] & scenes["finetune"]

    def test_goes_on_where_it_stopped(self, recorder: Recorder, tmp_path: Path) -> None:
        recorder.fail_at = "finetune"
        with pytest.raises(StageFailed, match=r"2 of 4 runs stopped.*no space left"):
            experiment(tmp_path).run()
        # What was done before, and the other method, are in the results already.
        assert "fosp,more_obstacles,before,1,4,3,1" in (tmp_path / "results/safe_reach.csv").read_text()
        before, recorder.fail_at = len(recorder.calls), ""
        (tmp_path / "runs/fosp/seed_1/more_obstacles").mkdir()
        (tmp_path / "runs/fosp/seed_1/more_obstacles/session.json").touch()
        experiment(tmp_path).run()
        assert [call[0] for call in recorder.calls[before:]] == ["finetune", "evaluate"] * 2
        assert ["--resume" in call for call in recorder.calls[before:]] == [False, False, True, False]
        count = len(recorder.calls)
        experiment(tmp_path).run()
        assert len(recorder.calls) == count

    def test_other_settings_are_not_mixed_with_old_results(self, recorder: Recorder, tmp_path: Path) -> None:
        experiment(tmp_path, seeds=(0,)).run()
        with pytest.raises(StageFailed, match="name another --out"):
            experiment(tmp_path, seeds=(0,), tests=5).run()

    def test_unknown_names(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="methods: unknown 'ppo'"):
            experiment(tmp_path, methods=("ppo",)).run()
        with pytest.raises(ConfigurationError, match="tasks: unknown 'original'"):
            experiment(tmp_path, tasks=("original",)).run()


@pytest.mark.parametrize("name", CONTESTANTS)
def test_contestants_can_be_made(name: str) -> None:
    contestant = CONTESTANTS[name]
    plain = preset(contestant.method, contestant.preset)
    changed = override(plain, contestant.settings)
    assert (changed != plain) == bool(contestant.settings)
    assert sum(number for _, number in contestant.data) == (int(name.split("_")[-1]) if "size" in name else 200)


def test_a_stage_runs_a_real_command_and_tells_why_it_failed(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "stage.json", ("nonsense",))
    with pytest.raises(StageFailed, match=r"`safe-policy nonsense` ended with 2: unknown command 'nonsense'"):
        run_stage(stage, threads=1)
    assert not stage.path.exists()


def test_last_object() -> None:
    assert last_object('{"a": 1}\n3\nnoise {\n{"b": 2}\n[1]\n') == {"b": 2}
    assert last_object("nothing") is None


def test_table_pools_seeds_and_marks_the_bar() -> None:
    rows = [{"method": "fosp", "task": "more_obstacles", "phase": "after", "seed": seed, "episodes": 100,
             "successes": successes, "violations": violations}
            for seed, successes, violations in ((0, 97, 2), (1, 95, 3))]
    lines = table([*rows, rows[0] | {"task": "target_shape"}, rows[0] | {"method": "bc_all"}]).splitlines()
    assert [line.split(" | ")[:2] for line in lines[-3:]] == [
        ["| more_obstacles", "fosp"], ["| more_obstacles", "bc_all"], ["| target_shape", "fosp"]]
    line = lines[-3]
    assert "**96.0 [92, 98]**" in line and "2.5 [1, 6]" in line and "**2.5" not in line


class TestFigures:
    def test_colour_of_an_outcome(self) -> None:
        frames = np.zeros((3, 8, 8, 3), np.uint8)
        outcomes = [Strip("t", "m", frames, success, violation).colour
                    for success, violation in ((True, False), (True, True), (False, False))]
        assert outcomes == [SUCCESS, VIOLATION, FAILURE]

    def test_film_shows_frames_in_the_outcomes_colour(self, tmp_path: Path) -> None:
        frames = np.full((9, 8, 8, 3), 128, np.uint8)
        path = safe_reach_figures.film(tmp_path / "film.png", [Strip("task", "fosp", frames, False, True)])
        pixels = iio.imread(path)[..., :3].reshape(-1, 3)
        red = np.array([int(VIOLATION[index:index + 2], 16) for index in (1, 3, 5)])
        assert (np.abs(pixels.astype(int) - red).max(1) < 8).any()

    def test_pooled_calibration_weighs_by_steps(self) -> None:
        curves = [{"bins": [{"low": 0.0, "count": 30, "predicted": 0.1, "observed": 0.0}], "brier": 0.01},
                  {"bins": [{"low": 0.0, "count": 10, "predicted": 0.02, "observed": 0.4},
                            {"low": 0.5, "count": 10, "predicted": 0.6, "observed": 1.0}], "brier": 0.16}]
        points, brier = safe_reach_figures.pool(curves)
        assert points[0] == pytest.approx((0.08, 0.1, 40)) and points[1] == pytest.approx((0.6, 1.0, 10))
        assert brier == pytest.approx((30 * 0.01 + 20 * 0.16) / 50)
