from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safe_policy_core.data.dsrl import (
    DIRECTORY_VARIABLE,
    KEYS,
    DsrlDataset,
    find_dsrl_file,
    is_dsrl_file,
    read_dsrl,
    write_dsrl,
)
from safe_policy_core.data.dsrl_tasks import load_tasks, normalized_cost, normalized_reward
from safe_policy_core.data.sources import open_data
from safe_policy_core.errors import DatasetError
from tests.core.corridor import corridor_dataset


def columns(lengths: tuple[int, ...] = (3, 2), fragment: int = 0, size: int = 4) -> dict[str, Any]:
    """One array a key; episodes of these lengths, the first ended by a terminal, the others by a timeout."""
    rng, rows = np.random.default_rng(0), sum(lengths) + fragment
    ends = np.cumsum(lengths) - 1
    observations = rng.normal(size=(rows, size)).astype(np.float32)
    following = np.roll(observations, -1, 0)
    following[ends] = 100 + np.arange(len(ends))[:, None]
    terminals, timeouts = np.zeros((2, rows), bool)
    terminals[ends[0]], timeouts[ends[1:]] = True, True
    return {"observations": observations, "next_observations": following,
            "actions": rng.uniform(-1, 1, (rows, 2)).astype(np.float32), "rewards": rng.normal(size=rows),
            "costs": rng.random(rows), "terminals": terminals, "timeouts": timeouts}


def write(path: Path, arrays: dict[str, Any]) -> Path:
    with h5py.File(path, "w") as file:
        for key, values in arrays.items():
            file.create_dataset(key, data=values, compression="gzip")
    return path


def test_reads_what_another_program_wrote(tmp_path: Path) -> None:
    arrays = columns()
    # Other widths, an extra axis, numbers as flags, and keys of its own are all fine.
    given = arrays | {"observations": arrays["observations"].astype(np.float64), "rewards": arrays["rewards"][:, None],
                      "terminals": arrays["terminals"].astype(np.float32), "info": np.zeros(3),
                      "timeouts": 2 * arrays["timeouts"].astype(int)}
    data = read_dsrl(write(tmp_path / "a.hdf5", given))
    assert (len(data), data.rows, data.dropped) == (2, 5, 0)
    assert data.starts.tolist() == [0, 3, 5]
    assert data.observations.dtype == data.rewards.dtype == np.float32 and data.terminals.dtype == bool
    assert data.returns == pytest.approx([arrays["rewards"][:3].sum(), arrays["rewards"][3:].sum()], abs=1e-5)
    assert data.cost_returns[1] == pytest.approx(arrays["costs"][3:].sum(), abs=1e-5)
    assert data.terminals.tolist() == [False, False, True, False, False]
    np.testing.assert_array_equal(data.next_observations(np.arange(5)), arrays["next_observations"])
    assert data.specs.observation["vector"].shape == (4,)


def test_next_observations_are_kept_once(tmp_path: Path) -> None:
    arrays = columns()
    assert read_dsrl(write(tmp_path / "a.hdf5", arrays)).every_next_observation is None
    arrays["next_observations"][0] += 1  # inside an episode: no longer the following row
    data = read_dsrl(write(tmp_path / "b.hdf5", arrays))
    assert data.every_next_observation is not None
    np.testing.assert_array_equal(data.next_observations(np.arange(5)), arrays["next_observations"])


def test_a_trailing_fragment_is_dropped(tmp_path: Path) -> None:
    arrays = columns(fragment=4)
    arrays["rewards"][-1] = np.nan  # what is dropped is not judged
    data = read_dsrl(write(tmp_path / "a.hdf5", arrays))
    assert (data.rows, data.dropped, len(data)) == (5, 4, 2)


@pytest.mark.parametrize(("change", "message"), [
    (lambda a: a.pop("costs"), "costs: missing"),
    (lambda a: a.update(rewards=a["rewards"][:-1]), "rewards: 4 rows, but observations has 5"),
    (lambda a: a["actions"].__setitem__((3, 1), np.nan), "actions: row 3 is not finite"),
    (lambda a: a["next_observations"].__setitem__((4, 0), np.inf), "next_observations: row 4 is not finite"),
    (lambda a: a.update(rewards=a["rewards"] * 1e300), "rewards: row 0 is not finite"),
    (lambda a: (a.update(terminals=np.zeros(5), timeouts=np.zeros(5))), "no whole episode"),
    (lambda a: a.update(observations=a["observations"][:, 0]), "observations: expected shape"),
    (lambda a: a.update(next_observations=a["next_observations"][:, :2]), "next_observations: expected shape"),
    (lambda a: a.update(costs=np.array([b"a"] * 5)), "costs: expected numbers"),
    (lambda a: a.update(terminals=np.array([0, np.nan, 1, 0, 0])), "terminals: row 1 is not finite"),
    (lambda a: a.update(timeouts=np.array([0, 0, 0, np.inf, 1.0])[:, None]), "timeouts: row 3 is not finite"),
])
def test_bad_files_are_named(tmp_path: Path, change: Any, message: str) -> None:
    arrays = columns()
    change(arrays)
    path = write(tmp_path / "bad.hdf5", arrays)
    with pytest.raises(DatasetError, match=message) as error:
        read_dsrl(path)
    assert "bad.hdf5" in str(error.value)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.hdf5", columns((400, 400)))
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DatasetError, match=r"a\.hdf5"):
        read_dsrl(path)


@settings(max_examples=12, deadline=None)
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5), fragment=st.integers(0, 3), seed=st.integers(0, 9))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, lengths: list[int], fragment: int, seed: int) -> None:
    data = DsrlDataset.from_arrays(**columns(tuple(lengths), fragment), metadata={"seed": seed})
    path = tmp_path_factory.mktemp("dsrl") / "a.hdf5"
    write_dsrl(path, data)
    again = read_dsrl(path)
    assert again.data_hash() == data.data_hash()
    assert again.lengths.tolist() == lengths
    assert again.metadata == {"seed": seed} and again.specs == data.specs
    with h5py.File(path) as file:
        assert set(KEYS) <= set(file)
        np.testing.assert_array_equal(file["next_observations"][()], data.next_observations(np.arange(data.rows)))


def test_files_are_found_by_path_name_and_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path))
    path = write(tmp_path / load_tasks()["PointGoal1"].file, columns())
    assert find_dsrl_file(path) == find_dsrl_file(path.name) == find_dsrl_file("PointGoal1") == path
    assert open_data([Path("PointGoal1")]).rows == 5
    own = write(tmp_path / "Mine.hdf5", columns((2, 2)))
    assert find_dsrl_file("Mine.hdf5") == own and open_data([Path("Mine.hdf5")]).rows == 4
    with pytest.raises(DatasetError, match=r"Yours\.hdf5: no such episode file"):
        open_data([Path("Yours.hdf5")])
    with pytest.raises(DatasetError, match=r"CarGoal1: no such DSRL file.*DSRL_DATASET_DIR"):
        find_dsrl_file("CarGoal1")


def test_what_is_and_what_is_not_a_dsrl_file(tmp_path: Path) -> None:
    (tmp_path / "text.hdf5").write_text("no")
    assert not is_dsrl_file(tmp_path / "text.hdf5") and not is_dsrl_file(tmp_path)
    first = write(tmp_path / "a.hdf5", columns())
    with pytest.raises(DatasetError, match="trained on alone"):
        open_data([first, first])


def test_what_is_neither_is_named_as_what_it_may_be(tmp_path: Path) -> None:
    arrays = columns((400, 400))
    part = write(tmp_path / "part.hdf5", {key: arrays[key] for key in ("rewards", "actions")})
    with pytest.raises(DatasetError, match=r"part\.hdf5: observations: missing; a DSRL file has the keys"):
        open_data([part])
    damaged = write(tmp_path / "a.hdf5", arrays)
    damaged.write_bytes(damaged.read_bytes()[:-2000])
    text = tmp_path / "text.hdf5"
    text.write_text("no")
    for path in (damaged, text):
        with pytest.raises(DatasetError, match=f"{path.name}: .*neither an episode file nor a DSRL file"):
            open_data([path])


def test_a_fragment_that_is_left_out_of_training_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    open_data([write(tmp_path / "whole.hdf5", columns())])
    assert not caplog.records
    open_data([write(tmp_path / "a.hdf5", columns(fragment=4))])
    assert "a.hdf5: the last 4 of 9 steps are left out" in caplog.text


def test_the_table_has_38_tasks_and_its_scores() -> None:
    tasks = load_tasks()
    assert len(tasks) == 38
    goal = tasks["PointGoal1"]
    assert goal.horizon == 1000 and goal.targets[0] == (30.0, 20) and goal.thresholds == (20, 40, 80)
    assert goal.normalized_reward(goal.max_return) == 1 and goal.normalized_reward(goal.min_return) == 0
    assert tasks["AntRun"].thresholds == (10, 20, 40)
    assert normalized_reward(5, 0, 10) == 0.5
    assert normalized_cost(5, 10) == 0.5 and normalized_cost(0, 0) == 1 and normalized_cost(3, 0) == 4
    for wrong in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="threshold"):
            normalized_cost(1, wrong)


def test_corridor_is_a_dataset_of_both_behaviours() -> None:
    """The rig of the learning tests: most episodes cost, and those earn more."""
    data = corridor_dataset(30)
    unsafe = data.cost_returns > 5
    assert 0.4 < unsafe.mean() < 0.95 and data.returns[unsafe].min() > data.returns[~unsafe].max()
