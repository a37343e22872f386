"""Demonstrators, `safe-policy collect` and `safe-policy replay`."""

import dataclasses
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safe_policy_core import replay_report
from safe_policy_core.data.episodes import EpisodeStore, read_episode
from safe_policy_core.errors import ConfigurationError, DatasetError
from safe_policy_core.interfaces import Specs
from sim.commands import Collect, Replay
from sim.safe_reach import task
from sim.safe_reach.collection import SEED_BASE, record_until
from sim.safe_reach.demonstrators import PAPER_COUNTS, share_counts
from sim.safe_reach.environment import SafeReachEnv
from sim.safe_reach.replay import replay_episode
from sim.safe_reach.state import STATE_SPECS
from sim.safe_reach.video import STRIP_HEIGHT, VIDEO_SIZE


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
        error = episode["position_error"]
        assert len(error) == len(episode["rotation_error"]) == episode["steps_replayed"] + 1
        assert max(error) == pytest.approx(episode["max_position_error"], abs=1e-6)
    assert result["reward_agreement"] > 0.95 and result["cost_agreement"] > 0.95
    frames = list(imageio_ffmpeg.read_frames(result["video"]))
    assert frames[0]["size"] == (2 * VIDEO_SIZE, VIDEO_SIZE + STRIP_HEIGHT)
    assert len(frames) - 1 == sum(len(episode["position_error"]) for episode in result["episodes"])


def test_a_wrong_action_shows_in_the_pose_error_from_its_step_on(collected: Path, safe_reach: SafeReachEnv) -> None:
    episode = read_episode(sorted(collected.glob("*.h5"))[0])
    action = episode.executed_action.copy()
    action[4] = -np.sign(action[4])
    result = replay_episode(safe_reach, dataclasses.replace(episode, executed_action=action))
    assert max(result["position_error"][:5]) < 0.001 < 0.005 < max(result["position_error"][5:7])


def test_an_episode_whose_scene_is_unknown_is_named(collected: Path, safe_reach: SafeReachEnv) -> None:
    episode = read_episode(sorted(collected.glob("*.h5"))[0])
    for name, value in (("seed", None), ("layout", {"obstacles": [{}]}), ("task", "x")):
        with pytest.raises(DatasetError, match=name):
            replay_episode(safe_reach, dataclasses.replace(episode, metadata=episode.metadata | {name: value}))


@pytest.mark.parametrize("specs", [task.SPECS, task.VECTOR_SPECS, STATE_SPECS], ids=["pictures", "vector", "states"])
def test_replay_of_a_policy(tmp_path: Path, specs: Specs) -> None:
    """An untrained policy: the point is that it runs, in its own specs, and is counted."""
    from safe_policy_core.methods.registry import make_learner

    make_learner("bc", specs, seed=0).save(tmp_path / "policy")
    video = tmp_path / "video.mp4" if specs is STATE_SPECS else None
    result = Replay(policy=tmp_path / "policy", task="random_layout", episodes=1, video=video).run()
    assert video is None or video.stat().st_size > 1000
    assert result["policy"]["episodes"] == 1
    assert result["policy"]["task"] == "random_layout"
    assert "expected at least 80%" in result["report_problem"]


def judged(folder: Path, **options: object) -> dict:
    """What the command line says of a report, as a process would end."""
    result = Replay(gate=folder, task="original", **options).run()  # type: ignore[arg-type]
    assert result["_exit_code"] == (0 if result["gate"]["passed"] else 1)
    return result["gate"]


def test_the_gate_passes_only_when_enough_episodes_bound_the_violation_rate(tmp_path: Path) -> None:
    from safe_policy_core.methods.registry import make_learner

    folder = tmp_path / "policy"
    make_learner("bc", task.SPECS, seed=0).save(folder)
    assert "no simulation replay" in judged(folder)["problem"]

    def report(episodes: int, violations: int, successes: int | None = None) -> dict:
        replay_report.write(folder, "original", range(episodes), {
            "episodes": episodes, "success_rate": (episodes if successes is None else successes) / episodes,
            "violation_rate": violations / episodes, "cost": 0.0, "success_interval": [0, 1],
            # What the report says of its own interval does not count.
            "violation_interval": [0.0, 0.0]})
        return judged(folder)

    assert not report(20, 0)["passed"], "perfect, but seen too rarely"
    assert "72 episodes are needed" in judged(folder)["problem"]
    assert not report(71, 0)["passed"]
    assert report(72, 0)["passed"]
    assert judged(folder / "replay.json")["violation_upper_bound"] == pytest.approx(1 - 0.025 ** (1 / 72))
    assert not judged(folder, max_violation_rate=0.04)["passed"], "the bound is configured"
    assert not report(109, 1)["passed"] and report(110, 1)["passed"]
    assert not report(200, 40)["passed"]
    assert "success in 79%" in report(1000, 0, 790)["problem"]
    assert judged(folder, min_success_rate=0.7)["passed"]
    make_learner("bc", task.SPECS, seed=1).save(folder)
    assert "other weights" in judged(folder)["problem"] or "no simulation replay" in judged(folder)["problem"]
    with pytest.raises(ConfigurationError, match="max_violation_rate"):
        judged(folder, max_violation_rate=0.0)


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
