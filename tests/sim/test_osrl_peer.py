"""The comparison with OSRL; what needs its environment runs where `sim/osrl_peer/setup.sh` made one."""

from __future__ import annotations

from pathlib import Path

import pytest

from safe_policy_core.data.dsrl import write_dsrl
from safe_policy_core.errors import ConfigurationError
from sim.experiments.rows import Row
from sim.osrl_peer import peer
from sim.osrl_peer.__main__ import paired
from tests.core.track_env import STEPS, TrackEnv, mixed_data


def job(file: Path, method: str = "bc_safe", **settings: object) -> peer.Job:
    return peer.Job(method, str(file), steps=2, batch=16, cost_limit=2.0, horizon=STEPS, return_range=(6.0, 18.0),
                    target_return=9.0, threads=1, **settings)  # type: ignore[arg-type]


def test_a_missing_environment_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(peer, "PYTHON", tmp_path / "python")
    with pytest.raises(ConfigurationError, match=r"python: missing; run sim/osrl_peer/setup\.sh"):
        peer.run(job(tmp_path / "data.hdf5"))


def test_rows_of_both_stand_side_by_side() -> None:
    rows = [Row(method, "A", seed, 1.0, 0.5, 0.5, 2) for method, seed in (
        ("osrl_cdt", 1), ("osrl_bc_safe", 0), ("cpq", 0), ("osrl_cdt", 0), ("bc", 0), ("cdt", 0))]
    assert [(each.method, each.seed) for each in paired(rows)] == [
        ("bc", 0), ("osrl_bc_safe", 0), ("cdt", 0), ("osrl_cdt", 0), ("osrl_cdt", 1), ("cpq", 0)]


@pytest.mark.skipif(not peer.PYTHON.is_file(), reason="OSRL is not installed (sim/osrl_peer/setup.sh)")
def test_osrl_trains_here_and_acts_in_our_environment(tmp_path: Path) -> None:
    write_dsrl(tmp_path / "track.hdf5", mixed_data(12))
    outcome = peer.run(job(tmp_path / "track.hdf5", episodes=2), TrackEnv())
    assert len(outcome.returns) == len(outcome.costs) == 2
    assert outcome.step_time > 0
    assert all(0 <= cost <= STEPS for cost in outcome.costs)
    with pytest.raises(ConfigurationError, match="process ended"):
        peer.run(job(tmp_path / "none.hdf5"))
