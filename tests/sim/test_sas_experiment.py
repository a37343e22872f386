"""The comparison with and without alignment, and the map of a task, with real environments and tiny models."""

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest

from data_collection.report.page import Report
from safe_policy_core.data.dsrl import read_dsrl
from safe_policy_core.errors import ConfigurationError, UserError
from safe_policy_core.evaluation import EpisodeResult, rollout
from safe_policy_core.interfaces import Policy, RobotEnv
from safe_policy_core.methods.registry import make_learner
from safe_policy_core.methods.sas.config import SasConfig
from safe_policy_core.methods.sequence.config import DtConfig
from safe_policy_core.training.offline import train_offline
from sim.collectors.collect import collect
from sim.collectors.tasks import TASKS
from sim.experiments.rows import read_rows
from sim.experiments.sas import SasExperiment, SasRow, _Contest, table
from sim.landscape import GOAL, HAZARD, Disc, GoalView, Way, _axes, _region, later_goals
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


def copied(experiment: SasExperiment, folder: Path) -> SasExperiment:
    """With the rows, the table and their settings elsewhere."""
    for suffix in (".csv", ".md", ".settings.json"):
        shutil.copy(experiment.out.with_suffix(suffix), folder / f"sas{suffix}")
    return dataclasses.replace(experiment, out=folder / "sas.csv")


def test_rows_of_other_settings_are_refused(finished: SasExperiment, tmp_path: Path) -> None:
    mine = copied(finished, tmp_path)
    assert mine.run()["runs"] == 0
    for message, changes in {"steps: expected steps 2 as in the rows of SafeReach in .*, got 3": {"steps": 3},
                             "set: expected set": {"set": (*mine.set, "dropout=0.0")},
                             r"align: expected align\.imagined_steps 100 .*, got 30": {"align": ("imagined_steps=30",)},
                             "target_cost: expected target_cost None": {"target_cost": 3.0}}.items():
        with pytest.raises(ConfigurationError, match=message):
            dataclasses.replace(mine, **changes).run()  # type: ignore[arg-type]
    settings = tmp_path / "sas.settings.json"
    settings.unlink()
    assert mine.run()["runs"] == 0  # the base is there
    with pytest.raises(ConfigurationError, match="has rows of SafeReach of unknown settings"):
        dataclasses.replace(mine, runs=tmp_path / "runs").run()
    assert dataclasses.replace(mine, methods=("dt_cost",)).run()["runs"] <= 1 and mine.out.exists()


def test_a_heading_written_by_hand_stays(finished: SasExperiment, tmp_path: Path) -> None:
    mine = copied(finished, tmp_path)
    path = tmp_path / "sas.md"
    path.write_text("By hand.\n\n" + path.read_text()[path.read_text().index("| dataset"):])
    dataclasses.replace(mine, methods=("dt_no_v",)).run()
    assert path.read_text().startswith("By hand.\n\n| dataset | method")
    assert "| SafeReach | dt_no_v | 1 |" in path.read_text() and path.read_text().count("| dataset |") == 1


def test_heads_are_not_trained_again_for_another_alignment(finished: SasExperiment, tmp_path: Path) -> None:
    """Of the trained run folder, with another number of imagined steps in another results file."""
    other = dataclasses.replace(finished, out=tmp_path / "sas.csv", methods=("dt_sas",), align=("imagined_steps=30",))
    heads = finished.runs / "dt-SafeReach-0-2" / "heads" / "checkpoint" / "manifest.json"
    before = heads.stat().st_mtime_ns
    assert other.run()["runs"] == 1
    assert heads.stat().st_mtime_ns == before


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
    assert json.loads((folder / "asked.json").read_text())["trials"][0]["episodes"] in (1, 2)
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
                             "choose: expected 0, or at least 2": {"choose": 1},
                             "methods: dt_prompts5: prompt_steps: 5 prompts of 5 do not fit into the base's context of "
                             "8": {"methods": ("dt", "dt_prompts5")}}.items():
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


@pytest.fixture(scope="module")
def point_heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny SAS checkpoint of PointGoal1."""
    folder = tmp_path_factory.mktemp("point")
    collect(TASKS["PointGoal1"], 2, 0, folder / "PointGoal1.hdf5")
    data = read_dsrl(folder / "PointGoal1.hdf5")
    base = make_learner("dt", data.specs, DtConfig(length=8, units=16, heads=2, layers=1))
    train_offline(base, data, 2, 4, 1, 0, folder / "base", progress=False)
    heads = make_learner("sas", data.specs, SasConfig(base=str(folder / "base"), units=16, imagined_steps=12,
                                                      evidence_draws=2))
    train_offline(heads, data, 2, 4, 1, 0, folder / "heads", progress=False)
    return folder / "heads"


def test_the_map_of_a_goal_task_is_drawn(point_heads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all ways and goals on it, and each line in the legend."""
    drawn: list[Any] = []
    monkeypatch.setattr("sim.landscape.POINTS", 7)
    monkeypatch.setattr("sim.landscape.plt.close", drawn.append)
    result = Report(tmp_path, landscape=point_heads, landscape_task="PointGoal1").run()
    assert (tmp_path / "landscape-PointGoal1.png").read_bytes().startswith(b"\x89PNG")
    (figure,), region = drawn, result["region of attraction"]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert f"region of attraction (G at least 0): {region}" in legend
    assert {"unsafe: energy above that of 95% of the map", "goal", "to avoid", "vase"} <= set(legend)
    density, lyapunov = figure.axes[:2]
    assert "density" in density.get_title() and lyapunov.get_title().startswith("G: ")
    low, high = np.transpose([lyapunov.get_xlim(), lyapunov.get_ylim()])
    for line in lyapunov.get_lines():
        assert (line.get_xydata() > low).all() and (line.get_xydata() < high).all()
    for disc in lyapunov.patches:
        assert (np.array(disc.center) > low).all() and (np.array(disc.center) < high).all()
    plt.close(figure)


def test_the_map_is_of_the_checkpoints_task(finished: SasExperiment, tmp_path: Path) -> None:
    heads = finished.runs / "dt-SafeReach-0-2" / "heads"
    with pytest.raises(ConfigurationError, match=r"landscape_task: PointGoal1 does not fit .*: observation vector"):
        Report(tmp_path, landscape=heads, landscape_task="PointGoal1").run()


def test_later_goals_are_seen_and_a_region_is_told_where_no_line_is() -> None:
    first, later = Disc(0.0, 0.0, 0.3, GOAL), Disc(2.0, 0.0, 0.3, GOAL)
    views = [[first], [first], [later, Disc(1.0, 1.0, 0.2, HAZARD)]]
    assert later_goals(views) == [later]
    view: Any = SimpleNamespace(low=np.full(2, -1.0), high=np.ones(2), discs=lambda: [first])
    x, y = _axes(view, [Way(np.array([[0.0, -3.0]]), [later], 0.0)])
    assert (x[0], x[-1], y[0], y[-1]) == (-1.0, 2.3, -3.3, 1.0)
    assert [_region(np.array(values)) for values in ([-1, -2], [0, 1], [-1, 1])] == [
        "nothing on this map", "all of this map", "50% of this map"]


def test_the_map_of_a_goal_task_moves_the_robot_and_puts_it_back() -> None:
    env = SafetyGymnasiumEnv("SafetyPointGoal1-v0")
    first = env.reset(0)[0]["vector"]
    view = GoalView(env)
    here = view.position()
    disc = next(disc for disc in view.discs() if disc.colour == HAZARD)
    seen = view.observations(np.array([here, disc[:2], here]))
    np.testing.assert_allclose(seen[[0, 2]], [first, first], atol=0.02)
    assert np.abs(seen[1] - first).max() > 0.2  # inside a hazard its lidar is at its largest
    np.testing.assert_allclose(view.position(), here, atol=1e-6)
    assert (view.low < here).all() and (here < view.high).all()
    env.close()
