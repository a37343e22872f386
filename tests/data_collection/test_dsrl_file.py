"""`safe-policy dataset info|validate|plot` on DSRL files."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from data_collection.dataset.commands import Info, Plot, Validate
from data_collection.dataset.dsrl_file import task_of
from safe_policy_core.data.dsrl import DIRECTORY_VARIABLE, DsrlDataset, read_dsrl, write_dsrl
from safe_policy_core.data.dsrl_tasks import load_tasks
from safe_policy_core.errors import DatasetError

LENGTH = 10


def arrays(returns: list[float], costs: list[float]) -> dict[str, np.ndarray]:
    """Episodes of ten steps with these sums."""
    rng, rows = np.random.default_rng(0), LENGTH * len(returns)
    ends = np.arange(rows) % LENGTH == LENGTH - 1
    observations = rng.normal(size=(rows, 4)).astype(np.float32)
    return {"observations": observations, "next_observations": np.roll(observations, -1, 0),
            "actions": rng.uniform(-1, 1, (rows, 2)).astype(np.float32), "rewards": np.repeat(returns, LENGTH) / LENGTH,
            "costs": np.repeat(costs, LENGTH) / LENGTH, "terminals": np.zeros(rows, bool), "timeouts": ends}


def written(path: Path, **changed: np.ndarray) -> Path:
    content = arrays([1.0, 5.0, 9.0], [0.0, 30.0, 70.0]) | changed
    write_dsrl(path, DsrlDataset.from_arrays(**content, metadata={"task": "CarCircle2"}))
    return path


def test_info_counts_what_keeps_each_usual_limit(tmp_path: Path) -> None:
    found = Info(written(tmp_path / "a.hdf5")).run()
    assert (found["episodes"], found["steps"], found["observation"], found["action"]) == (3, 30, 4, 2)
    assert found["within"] == {"20": {"episodes": 1, "best_return": 1.0}, "40": {"episodes": 2, "best_return": 5.0},
                               "80": {"episodes": 3, "best_return": 9.0}}
    assert found["cost"] == {"least": 0.0, "median": 30.0, "most": 70.0} and found["episodes_without_cost"] == 1
    assert found["made_by_dsrl"] is False and "normalization" not in found


def test_a_downloaded_file_is_found_by_its_task_and_held_against_the_table(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = load_tasks()["CarCircle2"]
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path))
    with pytest.raises(DatasetError, match=f"CarCircle2: no such DSRL file.*{task.file}"):
        Info(Path("CarCircle2")).run()
    path = written(tmp_path / task.file, rewards=np.repeat([1.0, 6.0, 10.0], LENGTH) / LENGTH)
    assert task_of(path, read_dsrl(path)) == (task, True)
    assert Info(Path("CarCircle2")).run()["normalization"]["max_return"] == task.max_return
    result = Validate(Path("CarCircle2")).run()
    assert result["_exit_code"] == 1 and len(result["doubts"]) == 2
    assert "1 returns outside DSRL's 5.11" in result["doubts"][0] and "first episode 0 with 1" in result["doubts"][0]
    assert result["doubts"][1] == f"3 episodes, DSRL's file has {task.episodes}"


def test_validate_names_what_a_person_should_look_at(tmp_path: Path) -> None:
    clean = Validate(written(tmp_path / "clean.hdf5")).run()
    assert clean["doubts"] == [] and clean["_exit_code"] == 0 and "nothing to look at" in clean["_text"]
    whole = arrays([1.0, 5.0, 9.0], [0.0, 30.0, 70.0])
    actions, ends = whole["actions"].copy(), whole["timeouts"].copy()
    actions[7, 1], ends[-1] = 1.5, False
    costs = whole["costs"].copy()
    costs[3] = -1
    found = Validate(written(tmp_path / "a.hdf5", actions=actions, costs=costs)).run()["doubts"]
    assert "actions: 0.5 outside their bound 1.0, first in row 7" in found
    assert "costs: expected at least 0, got -1 in row 3" in found
    repeated = {key: np.tile(values[:LENGTH], (3, *[1] * (values.ndim - 1))) for key, values in whole.items()}
    found = Validate(written(tmp_path / "b.hdf5", **repeated)).run()["doubts"]
    assert "costs: all zero; nothing here tells what is unsafe" in found
    assert "2 of 3 episodes are copies of others" in found
    thinned = whole["next_observations"].copy()
    thinned[4] += 1
    assert "thinned" in Validate(written(tmp_path / "c.hdf5", next_observations=thinned)).run()["doubts"][0]
    long = np.zeros(600, bool)
    long[-1] = True
    sized = {key: np.zeros((600, *values.shape[1:]), values.dtype) for key, values in whole.items()}
    found = Validate(written(tmp_path / "d.hdf5", **sized | {"timeouts": long})).run()["doubts"]
    assert "timeouts: an episode of 600 steps, CarCircle2 has at most 500" in found


def test_a_fragment_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    content = arrays([1.0, 5.0, 9.0], [0.0, 30.0, 70.0])
    content["timeouts"][-1] = False
    with h5py.File(path, "w") as file:
        for key, values in content.items():
            file[key] = values
    assert Info(path).run()["rows_after_the_last_episode"] == LENGTH
    assert "10 rows after the last end" in Validate(path).run()["doubts"][0]


def test_plots_are_pictures_beside_the_file(tmp_path: Path) -> None:
    result = Plot(written(tmp_path / "a.hdf5")).run()
    assert [Path(name).name for name in result["plots"]] == ["a_reward_cost.png", "a_actions.png"]
    for name in result["plots"]:
        assert Path(name).parent == tmp_path / "plots"
        assert np.asarray(Image.open(name).convert("L")).std() > 5


def test_a_file_that_is_neither_is_named(tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("no data")
    for command in (Info, Validate, Plot):
        with pytest.raises(DatasetError, match="expected a folder of episodes, or a DSRL file"):
            command(other).run()
    partial = tmp_path / "partial.hdf5"
    with h5py.File(partial, "w") as file:
        file["observations"] = np.zeros((3, 2))
    with pytest.raises(DatasetError, match="next_observations: missing"):
        Info(partial).run()
