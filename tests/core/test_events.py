"""TensorBoard shows what the JSON lines hold, also of runs that were interrupted."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from safe_policy_core.methods.bc import BcLearner
from safe_policy_core.training.events import FOLDER
from safe_policy_core.training.session import ROWS, FinetuneSession
from tests.core.point_env import SPECS
from tests.core.test_training import CONFIG, Interrupted, StoppingLearner, train

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def shown(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of each curve, as TensorBoard reads them."""
    events = accumulator.EventAccumulator(str(folder / FOLDER))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_an_interrupted_pretraining_shows_each_step_once(tmp_path: Path) -> None:
    first = StoppingLearner(SPECS, CONFIG, seed=1)
    first.stop_at = 30
    with pytest.raises(Interrupted):
        train(first, tmp_path)
    train(BcLearner(SPECS, CONFIG, seed=1), tmp_path, resume=True)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    curves = shown(tmp_path)
    assert set(curves) == {f"pretrain/{name}" for name in rows[0] if name != "step"}
    for name, points in curves.items():
        assert points == [(row["step"], pytest.approx(row[name.split("/")[1]])) for row in rows], name


def test_a_resumed_session_shows_each_episode_once(tmp_path: Path) -> None:
    for count in range(3):
        session = FinetuneSession.resume(tmp_path, {}) if count else FinetuneSession.begin(tmp_path, {})
        session.acted({"seed": 7, "episode_cost": float(count), "success": count == 2, "message": "", "path": "",
                       "online_share": None})
        session.learned({"metrics": {"loss": 0.5 * count}}, "checkpoint")
        session._lock.close()  # as when the process ends
    curves = shown(tmp_path)
    assert curves["finetune/loss"] == [(1, 0.0), (2, 0.5), (3, 1.0)]
    assert curves["episode/episode_cost"] == [(1, 0.0), (2, 1.0), (3, 2.0)]
    assert curves["episode/success"] == [(1, 0.0), (2, 0.0), (3, 1.0)]
    assert "episode/message" not in curves and "episode/online_share" not in curves
    assert len((tmp_path / ROWS).read_text().splitlines()) == 3


def test_the_core_trains_without_tensorboard(tmp_path: Path) -> None:
    code = ("import importlib.util, sys; from pathlib import Path\n"
            "find = importlib.util.find_spec\n"
            "importlib.util.find_spec = lambda name, *rest: None if name == 'tensorboard' else find(name, *rest)\n"
            "from safe_policy_core.training.events import Events\n"
            "events = Events(Path(sys.argv[1]) / 'log.jsonl'); events.add(1, {'loss': 1.0}, 'a'); events.flush()\n"
            "events.close(); assert 'tensorboard' not in sys.modules")
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert not list(tmp_path.iterdir())
