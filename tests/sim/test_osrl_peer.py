"""The comparison with OSRL; what needs its environment runs where `sim/osrl_peer/setup.sh` made one."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest

from safe_policy_core.data.dsrl import write_dsrl
from safe_policy_core.errors import ConfigurationError
from sim.experiments.rows import Row
from sim.osrl_peer import peer
from sim.osrl_peer.__main__ import main, paired
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


def worker(folder: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Another program in the place of OSRL's worker; it has read its job."""
    path = folder / "worker.py"
    path.write_text(f"import sys\nsys.path.insert(0, {str(peer.WORKER.parent)!r})\nsys.stdin.readline()\n{program}\n")
    monkeypatch.setattr(peer, "PYTHON", Path(sys.executable))
    monkeypatch.setattr(peer, "WORKER", path)


def test_what_native_code_prints_is_not_taken_for_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                            capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "osrl_worker.py").write_text(peer.WORKER.read_text())
    worker(tmp_path, monkeypatch, f"sys.path.insert(0, {str(tmp_path)!r})\nimport os, osrl_worker\n"
           "os.write(1, b'from C')\nprint('from Python', flush=True)\n"
           "osrl_worker.OUTPUT.write('{\"done\": 2.5}' + chr(10))\nosrl_worker.OUTPUT.flush()")
    assert peer.run(job(tmp_path / "data.hdf5")).step_time == 2.5
    printed = capfd.readouterr().err
    assert "from C" in printed and "from Python" in printed


def test_a_worker_that_ends_or_talks_nonsense_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for program, message in {
        "sys.exit(3)": "bc_safe: OSRL's process ended with code 3; its error is above",
        # It asks, and is gone before it is answered.
        "print('{\"reset\": true}', flush=True)\nimport os\nos.close(0)\nos._exit(4)": "ended with code 4",
        "print('hello')": "bc_safe: expected a JSON object from OSRL's process, got 'hello'",
    }.items():
        worker(tmp_path, monkeypatch, program)
        with pytest.raises(ConfigurationError, match=message):
            peer.run(job(tmp_path / "data.hdf5"), SlowEnv())


class SlowEnv(TrackEnv):
    """Resets when the worker has had the time to end."""

    def reset(self, seed: int) -> Any:
        time.sleep(0.5)
        return super().reset(seed)


def test_wrong_use_is_named_before_anything_is_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_dsrl(tmp_path / "track.hdf5", mixed_data(4))
    file = str(tmp_path / "track.hdf5")
    for words, message in {(file,): "task: expected the environment to evaluate in",
                           (file, "--task", "original-state"): "file: expected the name of a dataset of the benchmark",
                           ("nowhere.hdf5",): "nowhere.hdf5: no such DSRL file",
                           (file, "--methods", "sarsa"): "methods: unknown 'sarsa'"}.items():
        assert main(words) == 2
        assert message in capsys.readouterr().err


@pytest.mark.skipif(not peer.PYTHON.is_file(), reason="OSRL is not installed (sim/osrl_peer/setup.sh)")
def test_osrl_trains_here_and_acts_in_our_environment(tmp_path: Path) -> None:
    write_dsrl(tmp_path / "track.hdf5", mixed_data(12))
    outcome = peer.run(job(tmp_path / "track.hdf5", episodes=2), TrackEnv())
    assert len(outcome.returns) == len(outcome.costs) == 2
    assert outcome.step_time > 0
    assert all(0 <= cost <= STEPS for cost in outcome.costs)
    with pytest.raises(ConfigurationError, match="process ended"):
        peer.run(job(tmp_path / "none.hdf5"))
