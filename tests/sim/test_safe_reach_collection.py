"""Demonstrators, `safe-policy collect` and `safe-policy replay`."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safe_policy_core.data.episodes import EpisodeStore, read_episode
from safe_policy_core.errors import ConfigurationError, DatasetError
from sim.commands import Collect, Replay
from sim.safe_reach.collection import SEED_BASE, record_until
from sim.safe_reach.demonstrators import PAPER_COUNTS, share_counts
from sim.safe_reach.environment import SafeReachEnv


def test_the_papers_dataset_has_the_papers_counts() -> None:
    assert share_counts(200) == PAPER_COUNTS == {"safe_reach": 120, "safe_no_reach": 30, "contact_reach": 40,
                                                 "contact_no_reach": 10}


@given(st.integers(1, 1000))
def test_shares_add_up(episodes: int) -> None:
    counts = share_counts(episodes)
    assert sum(counts.values()) == episodes
    for name, count in counts.items():
        assert abs(count - episodes * PAPER_COUNTS[name] / 200) < 1


@pytest.mark.parametrize("behavior", PAPER_COUNTS)
def test_behaviours_come_out(safe_reach: SafeReachEnv, behavior: str) -> None:
    episode = record_until(safe_reach, behavior, seed=3, index=0).validated()
    assert episode.metadata["behavior"] == behavior
    assert (episode.reward.sum() > 0) == (not behavior.endswith("no_reach")) == bool(episode.terminated[-1])
    assert (episode.cost.sum() > 0) == behavior.startswith("contact")
    assert episode.metadata["seed"] >= SEED_BASE
    assert episode.intervention.all() and not episode.policy_action.any()
    assert np.abs(episode.human_action - episode.executed_action).mean() < 0.2


def test_no_two_are_alike(safe_reach: SafeReachEnv) -> None:
    one, other = (record_until(safe_reach, "safe_reach", seed=0, index=index) for index in range(2))
    length = min(len(one), len(other))
    assert np.abs(one.executed_action[:length] - other.executed_action[:length]).max() > 0.2
    again = record_until(safe_reach, "safe_reach", seed=0, index=0)
    np.testing.assert_array_equal(one.executed_action, again.executed_action)
    np.testing.assert_array_equal(one.observations["image"], again.observations["image"])


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("episodes")
    result = Collect("original", out, episodes=3, workers=1).run()
    assert result["count"] == result["recorded"] == 3
    return out


def test_collect_writes_what_training_reads(collected: Path) -> None:
    store = EpisodeStore([collected])
    assert len(store) == 3
    batch = store.sample(2, 8, np.random.default_rng(0))
    assert batch["image"].shape == (2, 8, 64, 64, 3)


def test_collect_continues_where_it_stopped(collected: Path) -> None:
    files = sorted(collected.glob("*.h5"))
    before = {file: file.stat().st_mtime_ns for file in files}
    files[-1].unlink()
    result = Collect("original", collected, episodes=3, workers=1).run()
    assert result["recorded"] == 1
    assert all(file.stat().st_mtime_ns == before[file] for file in files[:-1])
    assert files[-1].exists()


def test_replay_repeats_what_the_simulator_did(collected: Path, tmp_path: Path) -> None:
    result = Replay((collected,), video=tmp_path / "replay.mp4").run()
    assert result["count"] == 3
    # From the recorded pose the first step starts within a micrometre of the original joints; a push
    # against an obstacle amplifies that.
    for episode in result["episodes"]:
        assert episode["max_position_error"] < (0.01 if episode["violation_recorded"] else 0.001)
    assert result["reward_agreement"] > 0.95 and result["cost_agreement"] > 0.95
    assert Path(result["video"]).stat().st_size > 5000


def test_replay_of_a_policy(tmp_path: Path) -> None:
    """An untrained policy: the point is that it runs, in its own specs, and is counted."""
    from safe_policy_core.methods.registry import make_learner
    from sim.safe_reach import task

    make_learner("bc", task.SPECS, seed=0).save(tmp_path / "policy")
    result = Replay(policy=tmp_path / "policy", task="random_layout", episodes=1).run()
    assert result["policy"]["episodes"] == 1
    assert result["policy"]["task"] == "random_layout"


def test_bad_input_is_named(collected: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="task: unknown 'nothing'"):
        Collect("nothing", tmp_path).run()
    with pytest.raises(ConfigurationError, match="episodes: expected at least 1"):
        Collect("original", tmp_path, episodes=0).run()
    with pytest.raises(DatasetError, match=r"gone\.h5: no such"):
        Replay((tmp_path / "gone.h5",)).run()
    with pytest.raises(ConfigurationError, match="name recorded episodes"):
        Replay().run()
    whole = sorted(collected.glob("*.h5"))[0]
    torn = tmp_path / "torn.h5"
    torn.write_bytes(whole.read_bytes()[:3000])
    with pytest.raises(DatasetError, match=r"torn\.h5"):
        Replay((torn,)).run()
    assert read_episode(whole)
