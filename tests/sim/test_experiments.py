"""The runner of experiments with real methods, real data and a real Ray cluster, all small."""

import dataclasses
import json
import subprocess
from pathlib import Path

import pytest

from safe_policy_core.errors import UserError
from sim.collectors.collect import collect
from sim.collectors.tasks import TASKS
from sim.experiments import __main__ as command_line
from sim.experiments.job import configuration, dsrl_methods
from sim.experiments.offline_ablations import OfflineAblations
from sim.experiments.offline_figures import OfflineFigures, episode_cost, thresholds_of, weights_of
from sim.experiments.offline_safe_rl import OfflineSafeRl
from sim.experiments.offline_zero_shot import ZeroShot
from sim.experiments.rows import COLUMNS, Row, append, read_rows
from sim.experiments.table import table
from sim.experiments.workers import run_on_ray

METHOD = "cpq"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmark")
    collect(TASKS["SafeReach"], 4, 0, folder / "SafeReach.hdf5")
    return folder


def experiment(data: Path, folder: Path, **settings: object) -> OfflineSafeRl:
    default = OfflineSafeRl((METHOD,), ("SafeReach",), (0,), steps=3, batch=8, episodes=1, validation=80, data=data,
                            out=folder / "results" / "offline.csv", runs=folder / "runs")
    return dataclasses.replace(default, **settings)  # type: ignore[arg-type]


def test_rows_are_not_run_twice_and_new_ones_are(tmp_path: Path, data: Path) -> None:
    first = experiment(data, tmp_path)
    assert first.run()["runs"] == 1
    before = first.out.read_text()
    assert before.splitlines()[0] == "method,dataset,seed,target_cost,normalized_reward,normalized_cost,episodes"
    assert first.run() == {"results": str(first.out), "table": str(first.out.with_suffix(".md")), "runs": 0,
                           "skipped": 1, "failed": []}
    assert experiment(data, tmp_path, seeds=(0, 1)).run()["runs"] == 1
    rows = read_rows(first.out)
    assert first.out.read_text().startswith(before)
    assert [(row.method, row.dataset, row.seed, row.target_cost, row.episodes) for row in rows] == [
        (METHOD, "SafeReach", seed, 1.0, 1) for seed in (0, 1)]
    assert "| SafeReach (limit 1) |" in first.out.with_suffix(".md").read_text()


def test_a_failed_run_is_named_and_does_not_end_the_others(tmp_path: Path, data: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / f"{METHOD}-SafeReach-0-1-3").write_text("in the way")
    broken = experiment(data, tmp_path, seeds=(0, 1))
    result = broken.run()
    assert (result["runs"], len(result["failed"])) == (1, 1)
    assert "('cpq', 'SafeReach', 0, 1.0): " in result["failed"][0]
    (tmp_path / "runs" / f"{METHOD}-SafeReach-0-1-3").unlink()
    assert broken.run()["runs"] == 1
    assert len(read_rows(broken.out)) == 2


def test_a_training_has_the_precision_that_is_asked_for(tmp_path: Path, data: Path) -> None:
    asked = experiment(data, tmp_path, precision="bfloat16")
    assert asked.run()["runs"] == 1
    manifest = json.loads(next(asked.runs.rglob("manifest.json")).read_text())
    assert manifest["extra"]["offline"]["precision"] == "bfloat16"
    # What was trained in one does not go on in the other.
    asked.out.unlink()
    assert "precision" in dataclasses.replace(asked, precision="float32").run()["failed"][0]


def test_a_missing_dataset_is_collected(tmp_path: Path) -> None:
    experiment(tmp_path / "none", tmp_path, trajectories=2).run()
    assert (tmp_path / "none" / "SafeReach.hdf5").exists()


def test_a_ray_cluster_gives_the_rows_of_this_process(tmp_path: Path, data: Path) -> None:
    """Two processes of a local cluster share the jobs."""
    here = experiment(data, tmp_path / "here", seeds=(0, 1))
    there = experiment(data, tmp_path / "there", seeds=(0, 1), ray="local", workers=2)
    here.run()
    there.run()
    def ordered(run: OfflineSafeRl) -> list[Row]:
        return sorted(read_rows(run.out), key=lambda row: row.key)

    assert ordered(here) == ordered(there)


def test_no_cluster_is_named() -> None:
    for address, message in {"127.0.0.1:1": "no cluster at '127.0.0.1:1'", "here": "expected HOST:PORT"}.items():
        with pytest.raises(UserError, match=message):
            list(run_on_ray([], {}, 1, address))


def test_every_method_for_dsrl_files_can_be_configured_with_the_limit() -> None:
    methods = dsrl_methods()
    assert METHOD in methods
    assert not {"fosp"} & set(methods)
    configurations = [configuration(method, 7.5) for method in methods]
    limits = [getattr(config, field) for config in configurations for field in ("target_cost", "cost_limit")
              if hasattr(config, field)]
    assert limits
    assert set(limits) == {7.5}


def test_settings_are_for_one_method_or_for_all_that_have_them() -> None:
    settings = ("units=64", "qpt.layers=1", "target_rate=0.03")
    qpt, dt, cpq = (configuration(method, 1.0, settings) for method in ("qpt", "dt", "cpq"))
    assert (qpt.units, dt.units, cpq.units) == (64, 64, 64)
    assert (qpt.layers, dt.layers) == (1, configuration("dt", 1.0).layers)
    assert (qpt.target_rate, cpq.target_rate) == (0.03, 0.03)


def test_ablations_are_qpt_without_its_parts() -> None:
    def parts(name: str) -> list[bool]:
        config = configuration(f"qpt:{name}", 1.0)
        return [config.augmentation > 0, config.reward_weight > 0, config.safety_weight > 0, config.candidates > 1]

    # In the order of the columns of QPT's Table 2.
    assert [parts(name) for name in ("nothing", "augmentation", "reward", "safety", "penalties", "ensemble",
                                     "no_augmentation", "small")] == [
        [False] * 4, [True, False, False, False], [True, True, False, False], [True, False, True, False],
        [True, True, True, False], [True, False, False, True], [False, True, True, True], [True] * 4]


@pytest.mark.parametrize("dataset", TASKS)
def test_no_dataset_s_settings_undo_an_ablation(dataset: str) -> None:
    """What the budget has for a dataset comes after the preset: weights stay 0, or the multiple that they are."""
    jobs = dataclasses.replace(OfflineAblations(), datasets=(dataset,), seeds=(0,))._jobs()
    configs = {job.method: configuration(job.method, job.target_cost, job.settings) for job in jobs}
    base = configs["qpt"]
    for method, config in configs.items():
        own = configuration(method, 1.0)
        assert config.reward_weight == pytest.approx(own.reward_weight * base.reward_weight)
        assert config.safety_weight == pytest.approx(own.safety_weight * base.safety_weight)
        assert (config.augmentation, config.candidates) == (own.augmentation, own.candidates)
    assert (base.reward_weight, base.safety_weight) == {
        "PointGoal1": (0.1, 6.0), "SwimmerVelocity": (0.1, 0.1)}.get(dataset, (1.0, 1.0))
    assert len(set(configs.values())) == len(configs) == len(OfflineAblations().methods)


def test_a_budget_fits_its_methods_and_settings_come_after_it(tmp_path: Path, data: Path) -> None:
    experiment_of = dataclasses.replace(experiment(data, tmp_path), methods=("qpt:draws", "bc", "cpq"), steps=None,
                                        batch=None, set=("units=32", "qpt.layers=1"))
    qpt, bc, cpq = experiment_of._jobs()
    assert [(job.steps, job.batch) for job in (qpt, bc, cpq)] == [(4000, 64), (4000, 256), (4000, 256)]
    made = configuration(qpt.method, 10.0, qpt.settings)
    assert (made.units, made.layers, made.decay, made.drawn_candidates) == (32, 1, 4000, True)
    made = configuration(cpq.method, 10.0, cpq.settings)
    assert (made.units, made.vae_units) == (32, 128)
    far, _, _ = dataclasses.replace(experiment_of, datasets=("PointGoal1",), set=())._jobs()
    made = configuration(far.method, 10.0, far.settings)
    assert (far.steps, made.decay, made.length, made.safety_weight, made.sample_by_cost) == (8000, 8000, 10, 6, False)
    (papers,) = dataclasses.replace(experiment_of, budget="papers", methods=("qpt",), set=())._jobs()
    assert (papers.steps, papers.batch, papers.settings) == (100_000, 2048, ())


def test_a_policy_is_tested_under_thresholds_it_was_not_trained_with(tmp_path: Path, data: Path) -> None:
    settings = ("length=2", "layers=1", "heads=2", "units=8")
    run = ZeroShot(("cdt",), ("SafeReach",), (0,), steps=2, batch=4, episodes=1, data=data, set=settings,
                   thresholds=(0.5, 2.0), out=tmp_path / "zero.csv", runs=tmp_path / "runs")
    assert run.run()["runs"] == 2
    assert [row.target_cost for row in read_rows(run.out)] == [0.5, 2.0]
    assert len(list((tmp_path / "runs").iterdir())) == 1  # one training
    assert "| SafeReach (limit 2) |" in run.out.with_suffix(".md").read_text()


def test_sequence_models_ask_for_what_was_safe_on_other_layouts(tmp_path: Path, data: Path) -> None:
    settings = ("length=2", "layers=1", "heads=2", "units=8")
    run = experiment(data, tmp_path, methods=("cdt", METHOD), set=settings, validation=160)
    assert run.run()["runs"] == 2
    trials = json.loads((tmp_path / "runs" / "cdt-SafeReach-0-1-3" / "asked_1.json").read_text())["trials"]
    assert trials[0]["quantile"] == 1.0
    assert 1 <= trials[0]["episodes"] <= 160 / TASKS["SafeReach"].horizon
    assert not (tmp_path / "runs" / f"{METHOD}-SafeReach-0-1-3" / "asked_1.json").exists()


def test_figures_are_drawn_from_rows(tmp_path: Path) -> None:
    zero_shot = [Row(method, "A", seed, limit, 0.5, cost, 20) for method, cost in (("qpt", 0.5), ("cdt", 2.0))
                 for seed in (0, 1) for limit in (5.0, 10.0)]
    ablations = [Row(f"qpt{name}", "A", 0, 10.0, 0.5, 0.5, 20)
                 for name in ("", ":nothing", ":reward", ":reward_2", ":safety_0.1", ":candidates_10")]
    for path, rows in ((tmp_path / "zero.csv", zero_shot), (tmp_path / "ablations.csv", ablations)):
        for row in rows:
            append(path, row)
    lines = thresholds_of(zero_shot)
    assert {name: {place: len(found) for place, found in places.items()} for name, places in lines.items()} == {
        "qpt": {5.0: 2, 10.0: 2}, "cdt": {5.0: 2, 10.0: 2}}
    assert [episode_cost(row) for row in (lines["cdt"][5.0][0], Row("cdt", "A", 0, 0.0, 0.5, 4.0, 20))] == [10.0, 3.0]
    assert {name: sorted(places) for name, places in weights_of(ablations).items()} == {
        "η₁ (reward)": [1.0, 2.0], "η₂ (cost)": [0.1, 1.0]}
    made = OfflineFigures(tmp_path / "zero.csv", tmp_path / "ablations.csv", tmp_path / "pictures").run()["pictures"]
    assert [Path(each).read_bytes()[:4] for each in made] == [b"\x89PNG"] * 2
    with pytest.raises(UserError, match=r"none\.csv: no rows to draw"):
        OfflineFigures(tmp_path / "none.csv").run()


def test_table_marks_the_safe_and_the_best_of_them(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    values = {("cdt", "A"): (0.8, 0.6), ("bc", "A"): (0.9, 1.4), ("qpt", "A"): (0.85, 1.0), ("cdt", "B"): (0.5, 2.0),
              ("bc", "B"): (0.4, 1.2)}
    for (method, dataset), (reward, cost) in values.items():
        for seed in (0, 1):
            append(path, Row(method, dataset, seed, 10.0, reward + 0.02 * (seed - 0.5), cost, 20))
    append(path, Row("qpt", "B", 0, 10.0, 0.31, 0.9, 20))
    rows = read_rows(path)
    assert rows[0] == Row("cdt", "A", 0, 10.0, pytest.approx(0.79), 0.6, 20)
    assert path.read_text().splitlines()[0].split(",") == COLUMNS
    assert table(rows).splitlines() == [
        "| dataset | cdt | bc | qpt |", "| --- | --- | --- | --- |",
        "| A (limit 10) | **0.80 ±0.01 / 0.60 ±0.00** | 0.90 ±0.01 / 1.40 ±0.00 | **0.85 ±0.01 / 1.00 ±0.00** * |",
        "| B (limit 10) | 0.50 ±0.01 / 2.00 ±0.00 | 0.40 ±0.01 / 1.20 ±0.00 | **0.31 / 0.90** * |",
        "| mean of 2 | 0.65 / 1.30 | 0.65 / 1.30 | **0.58 / 0.95** * |"]


def test_wrong_use_is_named(tmp_path: Path, data: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    torn = tmp_path / "torn.csv"
    torn.write_text(",".join(COLUMNS) + "\nbc,A,0,10\n")
    for message, settings in {
        "datasets: unknown 'Nope'": {"datasets": ("Nope",)}, "steps": {"steps": 0}, "episodes": {"episodes": 0},
        "validation": {"validation": -1}, "target_cost: .*got -1": {"target_cost": -1.0},
        "target_cost: .*got nan": {"target_cost": float("nan")},
        "method: unknown name 'telepathy'": {"methods": ("telepathy",)},
        "expected the columns method": {"out": other},
        r"torn\.csv: line 2": {"out": torn}, "device: 'cuda:99'": {"device": "cuda:99"},
        "set: 'heads=2' is for none of cpq": {"set": ("heads=2",)},
        "set: unknown setting 'nope'": {"set": ("cpq.nope=1",)},
    }.items():
        with pytest.raises(UserError, match=message):
            experiment(data, tmp_path, **settings).run()


def test_command_line(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["nope"]) == 2
    assert "offline_safe_rl" in capsys.readouterr().err
    assert command_line.main(["offline_safe_rl", "--datasets", "Nope"]) == 2
    assert "Nope" in capsys.readouterr().err
    assert command_line.main(["offline_zero_shot", "--thresholds", "-1"]) == 2
    assert "thresholds: expected a finite number of at least 0, got -1" in capsys.readouterr().err
    words = ["offline_safe_rl", "--methods", METHOD, "--datasets", "SafeReach", "--seeds", "0", "--steps", "2",
             "--batch", "8", "--episodes", "1", "--data", str(data), "--out", str(tmp_path / "rows.csv"), "--runs"]
    (tmp_path / "in the way").write_text("")
    assert command_line.main([*words, str(tmp_path / "in the way")]) == 1
    assert len(json.loads(capsys.readouterr().out)["failed"]) == 1
    assert command_line.main([*words, str(tmp_path / "runs")]) == 0


def test_make_runs_the_experiment_that_is_named() -> None:
    root = Path(__file__).resolve().parents[2]
    shown = subprocess.run(["make", "-n", "experiments", "EXP=offline_safe_rl", "EXP_ARGS=--steps 5"], cwd=root,
                           capture_output=True, text=True, check=True)
    assert "-m sim.experiments offline_safe_rl --steps 5" in shown.stdout
