import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safe_policy_core.checkpoint import read_manifest
from safe_policy_core.data.dsrl import DsrlDataset
from safe_policy_core.data.sources import together
from safe_policy_core.errors import ConfigurationError
from safe_policy_core.interfaces import Spec, Specs
from safe_policy_core.methods.dspo.config import DiscriminatorConfig, DspoConfig
from safe_policy_core.methods.dspo.pipeline import read_generated
from safe_policy_core.methods.dspo.trajectories import Trajectories
from safe_policy_core.methods.overrides import override
from sim.collectors.collect import collect
from sim.collectors.tasks import TASKS
from sim.experiments import dspo_figure3
from sim.experiments.dspo import DspoExperiment, settings_of, subset, variants
from sim.experiments.dspo_results import append_quality, read_quality, require_settings, write_table
from sim.experiments.rows import Row, read_rows
from sim.generated import layout_of, play
from sim.safe_reach.environment import SafeReachEnv

REPLAY_TOLERANCE = 0.002
"""[m] between a recorded trajectory and its replay; the yaw of the obstacles is not in the state."""


def dataset(episodes: int, offset: float) -> DsrlDataset:
    values = offset + np.arange(3 * episodes, dtype=np.float32)[:, None]
    return DsrlDataset.from_arrays(
        observations=values, next_observations=values + 1, actions=np.zeros((3 * episodes, 1)), rewards=values[:, 0],
        costs=np.zeros(3 * episodes), terminals=np.zeros(3 * episodes), timeouts=np.arange(3 * episodes) % 3 == 2)


def test_played_actions_lead_where_they_led() -> None:
    """A recorded trajectory is a generated one without error; other actions lead elsewhere."""
    env = SafeReachEnv("original", images=False)
    try:
        observation, info = env.reset(3)
        rng, states, actions = np.random.default_rng(0), [observation["vector"]], []
        for _ in range(8):
            actions.append(rng.uniform(-0.6, 0.6, 6).astype(np.float32))
            states.append(env.step(actions[-1])[0]["vector"])
        found, wanted = layout_of(np.array(states)), info["layout"]
        places = [item["x"] for item in wanted["obstacles"]]
        assert [item.x for item in found.obstacles] == pytest.approx(places, abs=1e-3)
        assert found.target is not None
        assert found.target.y == pytest.approx(wanted["target"]["y"], abs=1e-3)
        right = play(env, np.array(states[:-1]), np.array(actions))
        assert len(right.error) == 8
        assert right.error.max() < REPLAY_TOLERANCE
        wrong = play(env, np.array(states[:-1]), -np.array(actions))
        assert wrong.error.max() > 5 * REPLAY_TOLERANCE
    finally:
        env.close()


def test_recorded_demonstrations_reach_when_played(tmp_path: Path) -> None:
    """The reward comes with the last action, which must be played too."""
    recorded = collect(TASKS["SafeReach"], 2, 0, tmp_path / "data.hdf5")
    assert (recorded.returns > 0).all()
    env = SafeReachEnv("original", images=False)
    try:
        for begin, end in zip(recorded.starts[:-1], recorded.starts[1:], strict=True):
            played = play(env, recorded.observations[begin:end], recorded.actions[begin:end])
            assert played.reward > 0
            assert len(played.error) == end - begin
            assert played.error.max() < REPLAY_TOLERANCE
    finally:
        env.close()


def test_parts_of_data() -> None:
    both = together(dataset(2, 0.0), dataset(1, 100.0))
    assert len(both) == 3
    assert both.observations[[0, 6], 0].tolist() == [0.0, 100.0]
    specs = Specs({"vector": Spec("observation/vector", (1,))}, Spec("action", (1,), low=-1.0, high=1.0))
    states = np.arange(9, dtype=np.float32)[:, None]
    trajectories = Trajectories(states, 0 * states, np.array([0, 2, 5, 9]), np.array([1.0, 2.0, 3.0]),
                                np.array([True, False, True]), specs, "")
    some = subset(trajectories, np.array([0, 2]))
    assert some.states[:, 0].tolist() == [0, 1, 5, 6, 7, 8]
    assert some.starts.tolist() == [0, 2, 6]
    assert some.safe.all()


def test_quality_rows_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "quality.csv"
    for seed in range(2):
        append_quality(path, ("dspo", "PointGoal1", seed, 0.5, 1.0, 0.123456, -0.1))
    assert read_quality(path) == {("dspo", "PointGoal1", 0), ("dspo", "PointGoal1", 1)}
    assert path.read_text().splitlines()[1] == "dspo,PointGoal1,0,0.5000,1.0000,0.1235,-0.1000"
    assert variants(DiscriminatorConfig())["no_return_agnostic"][0].return_weight == 0


def test_figure_3_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dspo_figure3, "VARIANTS", {"few": dataclasses.replace(dspo_figure3.SETTINGS, steps=2)})
    result = dspo_figure3.Figure3(out=tmp_path / "figure.png").run()
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    assert set(result["few"]) == {"recall", "accuracy", "f1", "pearson"}


def test_discriminators_are_shown_what_fits_the_dataset() -> None:
    assert settings_of("SafeReach", ()) == ("discriminator.inputs=changes",)
    assert settings_of("PointCircle1", ()) == ("discriminator.inputs=states",)
    chosen = override(DspoConfig(), settings_of("SafeReach", ("discriminator.inputs=states",)))
    assert chosen.discriminator.inputs == "states"


def test_an_unknown_method_is_named_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"unknown 'dspo_recall', expected some of dspo, .*dspo_recalled"):
        DspoExperiment(methods=("dspo", "dspo_recall"), out=tmp_path / "dspo.csv", runs=tmp_path / "runs").run()
    assert not list(tmp_path.iterdir())


SMALL = ("discriminator.steps=2", "discriminator.folds=2", "diffusion.steps=2", "diffusion.dim=8",
         "diffusion.multipliers=[1,2]", "diffusion.horizon=8", "diffusion.generated=4", "diffusion.diffusion_steps=6",
         "diffusion.sampling_steps=2", "cloning.steps=2", "cloning.units=8")


def small_experiment(folder: Path, **changes: Any) -> DspoExperiment:
    """SafeReach, methods alone, one test episode."""
    arguments: dict[str, Any] = {"methods": ("dspo_ddpm",), "set": SMALL, **changes}
    return DspoExperiment(("SafeReach",), (0,), variants=(), demonstrations=3, episodes=1, data=folder,
                          out=folder / "out.csv", runs=folder / "runs", **arguments)


def test_ddpm_differs_from_ddim_in_how_it_is_sampled_alone(tmp_path: Path) -> None:
    collect(TASKS["SafeReach"], 12, 0, tmp_path / "SafeReach.hdf5")
    small_experiment(tmp_path).run()
    runs = tmp_path / "runs" / "SafeReach-0-1-3"
    assert not (runs / "dspo" / "checkpoint").exists()  # trained as far as it is shared
    small_experiment(tmp_path, methods=("dspo", "dspo_ddpm")).run()
    for stage in ("discriminator", "diffusion"):
        one, other = (read_manifest(runs / method / stage)["sha256"] for method in ("dspo", "dspo_ddpm"))
        assert one == other
    (ddim, asked), (ddpm, asked_ddpm) = (read_generated(runs / method / "generated.hdf5") for method in
                                         ("dspo", "dspo_ddpm"))
    assert (asked["sampling_steps"], asked["sampling_eta"]) == (2, 0.0)
    assert asked_ddpm == asked | {"sampling_steps": 6, "sampling_eta": 1.0}
    np.testing.assert_array_equal(ddim.conditions, ddpm.conditions)
    assert (ddim.states != ddpm.states).any()
    assert [row.method for row in read_rows(tmp_path / "out.csv")] == ["dspo_ddpm", "dspo"]
    with pytest.raises(ConfigurationError, match=r"set: the rows in .*out.csv were made with .*name another --out"):
        small_experiment(tmp_path, set=(*SMALL, "diffusion.guidance=1")).run()
    with pytest.raises(ConfigurationError, match=r"dspo_ddpm: expected diffusion.generated above 0"):
        small_experiment(tmp_path, set=(*SMALL, "diffusion.generated=0")).run()


def test_results_of_other_settings_are_refused_and_old_ones_are_left_alone(tmp_path: Path) -> None:
    new, old = tmp_path / "new.csv", tmp_path / "old.csv"
    old.write_text("rows\n")
    for results in (new, old):
        require_settings(results, "--out", {"set": ("a=1",), "demonstrations": 12})
        results.write_text("rows\n")
    require_settings(new, "--out", {"set": ("a=1",), "demonstrations": 12})
    with pytest.raises(ConfigurationError, match=r"demonstrations: the rows in .*new.csv were made with 12, got 5"):
        require_settings(new, "--out", {"set": ("a=1",), "demonstrations": 5})
    require_settings(old, "--out", {"set": (), "demonstrations": 5})
    assert [path.name for path in tmp_path.glob("*.json")] == ["new.settings.json"]


def test_what_stands_before_the_table_stays(tmp_path: Path) -> None:
    rows = [Row("dspo", "SafeReach", seed, 1.0, 0.5, 0.5, 20) for seed in range(2)]
    path = tmp_path / "table.md"
    write_table(path, rows[:1])
    first = path.read_text()
    assert first.startswith("Normalised reward")
    path.write_text(first.replace("Normalised reward", "By hand: of a | b,\nnormalised reward"))
    write_table(path, rows)
    written = path.read_text()
    assert written.startswith("By hand: of a | b,\nnormalised reward")
    assert written.count("| dataset |") == 1
    assert "±" in written.partition("\n|")[2]
