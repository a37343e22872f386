"""The comparison with and without alignment, and the map of a task, with real environments and tiny models."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from data_collection.report.page import Report
from safe_policy_core.errors import ConfigurationError, UserError
from safe_policy_core.evaluation import EpisodeResult, rollout
from safe_policy_core.interfaces import Policy, RobotEnv
from sim.collectors.collect import collect
from sim.collectors.tasks import TASKS
from sim.experiments.rows import read_rows
from sim.experiments.sas import SasExperiment, SasRow, _Contest, table
from sim.landscape import GoalView
from sim.safety_gymnasium import SafetyGymnasiumEnv


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> SasExperiment:
    """A run of one base with two variants."""
    folder = tmp_path_factory.mktemp("sas")
    collect(TASKS["SafeReach"], 4, 0, folder / "data" / "SafeReach.hdf5")
    experiment = SasExperiment(("dt", "dt_sas", "dt_random"), ("SafeReach",), (0,), steps=2, head_steps=2, batch=4,
                               set=("length=8", "units=16", "heads=2", "layers=1"), episodes=1, data=folder / "data",
                               out=folder / "sas.csv", runs=folder / "runs")
    assert experiment.run()["runs"] == 3
    return experiment


def test_rows_are_kept_and_not_run_twice(finished: SasExperiment) -> None:
    lines = finished.out.read_text().splitlines()
    assert lines[0] == "method,dataset,seed,normalized_reward,normalized_cost,failure_rate,episodes"
    assert [line.split(",")[:3] for line in lines[1:]] == [[method, "SafeReach", "0"] for method in finished.methods]
    assert finished.run()["runs"] == 0
    assert dataclasses.replace(finished, methods=("dt_cost",)).run()["runs"] == 1
    assert finished.out.read_text().splitlines()[:4] == lines
    assert len(read_rows(finished.out, SasRow)) == 4
    assert "| SafeReach | dt_cost | 1 |" in finished.out.with_suffix(".md").read_text()


def test_what_is_asked_for_and_shown_is_chosen_on_other_layouts(
        finished: SasExperiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recorded prompts: the cheapest choice that keeps the base's reward; the tests are on layouts from 10,000 on."""
    seeds: list[int] = []

    def spy(env: RobotEnv, policy: Policy, seed: int) -> EpisodeResult:
        seeds.append(seed)
        return rollout(env, policy, seed)

    monkeypatch.setattr("sim.experiments.sas.rollout", spy)
    monkeypatch.setattr("sim.experiments.validation.rollout", spy)
    methods = ("dt", "dt_recorded", "dt_recorded_random")
    chosen = dataclasses.replace(finished, methods=methods, choose=2, out=tmp_path / "sas.csv", runs=tmp_path / "runs",
                                 set=("length=8", "units=16", "heads=2", "layers=1", "prompt_steps=4"),
                                 align=("prompt_steps=4", "recorded_cost=1000.0"))
    assert chosen.run()["runs"] == 3
    assert {seed for seed in seeds if seed < 10_000} == {0, 1} and seeds.count(10_000) == 3
    folder = tmp_path / "runs" / "dt-SafeReach-0-2"
    record = json.loads((folder / "recorded.json").read_text())
    assert json.loads((folder / "asked.json").read_text())[0]["episodes"] in (1, 2)
    costs = [record["tried"][number][2] for number in record["kept"]]
    assert record["danger"] == record["without"][1]
    if record["chosen"] is None:
        assert not costs or min(costs) >= record["danger"]
        assert len({line.split(",", 1)[1] for line in chosen.out.read_text().splitlines()[1:]}) == 1  # the base, thrice
    else:
        reward, cost = next(result for choice, result, _ in record["tried"] if choice == record["chosen"])
        assert cost == min(costs) < record["without"][1] and reward >= 0.95 * record["without"][0]


def test_prompts_are_chosen_that_keep_the_reward_and_cost_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: of returns from 0 to 10 the base has 8 and 10 at a cost of 3 and 5."""
    returns: dict[str, Any] = {"base": [(8, 3), (10, 5)], "dear": [(9, 5), (10, 4)], "poor": [(7.5, 0), (9.4, 0)],
                               "even": [(7.61, 1), (9.51, 2)], "best": [(8, 2), (10, 2)]}
    contest = _Contest("SafeReach", None, SimpleNamespace(returns=np.array([0.0, 10.0])), None, None, 1.0)  # type: ignore[arg-type]

    def run(self: _Contest, changes: dict[str, Any] | None, seeds: Any) -> list[EpisodeResult]:
        name = "base" if changes is None else changes["kind"]
        return [EpisodeResult(seed, 1, reward, cost, False, cost > 0, False, True, {}, {}, [])
                for seed, (reward, cost) in zip(seeds, returns[name], strict=True)]

    monkeypatch.setattr(_Contest, "run", run)
    for names, expected in ((["dear", "poor", "even", "best"], "even"), (["poor", "best"], "best"),
                            (["dear", "poor"], None), (["dear"], None), (["poor"], None)):
        monkeypatch.setattr("sim.experiments.sas.CHOICES", [{"kind": name} for name in names])
        record = tmp_path / f"{'-'.join(names)}.json"
        found = contest.chosen(range(2), record)
        assert found == (None if expected is None else {"kind": expected})
        assert contest.chosen(range(2), record) == found  # from the record
    # Where a fall is a failure, falls are counted: none of these falls, so that none is safer.
    contest.name = "HopperVelocity"
    assert contest.chosen(range(2), tmp_path / "falls.json") is None


def test_wrong_use_is_named(finished: SasExperiment, tmp_path: Path) -> None:
    for message, changes in {"methods: unknown 'dt_magic'": {"methods": ("dt_magic",)},
                             "methods: unknown 'fosp_sas'": {"methods": ("fosp_sas",)},
                             "datasets: unknown 'Nope'": {"datasets": ("Nope",)}, "head_steps": {"head_steps": 0},
                             "PointGoal1.hdf5 is missing": {"datasets": ("PointGoal1",)},
                             "choose: expected 0, or at least 2": {"choose": 1}}.items():
        with pytest.raises(UserError, match=message):
            dataclasses.replace(finished, out=tmp_path / "sas.csv", **changes).run()  # type: ignore[arg-type]


def test_table_compares_with_the_base_on_the_same_seeds() -> None:
    rows = [SasRow("dt", "A", 0, 0.8, 1.0, 0.5, 20), SasRow("dt", "A", 1, 0.8, 3.0, 0.5, 20),
            SasRow("dt_sas", "A", 0, 0.79, 1.5, 0.4, 20), SasRow("dt_random", "A", 1, 0.7, 2.0, 0.6, 20)]
    assert table(rows).splitlines()[2:] == [
        "| A | dt | 2 | 0.80 ±0.00 | 2.00 ±1.00 | 0.50 [0.34, 0.66] |",
        "| A | dt_sas | 1 | 0.79 ±0.00 | 1.50 ±0.00 | **0.40 [0.19, 0.64]** |",  # its seed's base costs 1
        "| A | dt_random | 1 | _0.70 ±0.00_ | **2.00 ±0.00** | 0.60 [0.36, 0.81] |"]


def test_the_map_of_safe_reach_is_drawn(finished: SasExperiment, tmp_path: Path) -> None:
    heads = finished.runs / "dt-SafeReach-0-2" / "heads"
    result = Report(tmp_path, landscape=heads).run()
    picture = tmp_path / "landscape-SafeReach.png"
    assert result["landscape"] == str(picture) and picture.read_bytes().startswith(b"\x89PNG")
    assert result["cost with alignment"] >= 0
    with pytest.raises(ConfigurationError, match="expected a checkpoint of sas"):
        Report(tmp_path, landscape=heads.parent).run()


def test_the_map_of_a_goal_task_moves_the_robot_and_puts_it_back() -> None:
    env = SafetyGymnasiumEnv("SafetyPointGoal1-v0")
    first = env.reset(0)[0]["vector"]
    view = GoalView(env)
    here = view.position()
    disc = view.discs()[0]
    seen = view.observations(np.array([here, disc[:2], here]))
    np.testing.assert_allclose(seen[[0, 2]], [first, first], atol=0.02)
    assert np.abs(seen[1] - first).max() > 0.2  # inside a hazard its lidar is at its largest
    np.testing.assert_allclose(view.position(), here, atol=1e-6)
    assert (view.low < here).all() and (here < view.high).all()
    env.close()
