import json
from pathlib import Path

import numpy as np
import pytest

from data_collection.report.page import Report, read_jsonl
from safe_policy_core.data.episodes import Episode, write_episode
from safe_policy_core.errors import DatasetError
from safe_policy_core.interfaces import Spec, Specs

SPECS = Specs({"image": Spec("observation/image", (64, 64, 3), "uint8", 0, 255),
               "pose": Spec("observation/pose", (6,), unit="m, rad")}, Spec("action", (6,), low=-1.0, high=1.0))


def episode(steps: int, cost: float = 0.0) -> Episode:
    zeros = np.zeros((steps, 6), np.float32)
    final = np.zeros(steps, bool)
    final[-1] = True
    return Episode(
        observations={"image": np.random.default_rng(0).integers(0, 255, (steps + 1, 64, 64, 3), np.uint8),
                      "pose": np.linspace(0.4, 0.6, (steps + 1) * 6, dtype=np.float32).reshape(-1, 6)},
        executed_action=zeros, policy_action=zeros, human_action=zeros, intervention=np.zeros(steps, bool),
        filter_reason=[""] * steps, reward=final.astype(np.float32),
        cost=np.full(steps, cost, np.float32), terminated=final, truncated=np.zeros(steps, bool),
        time_ns=np.arange(steps + 1, dtype=np.int64), metadata={"task": "original", "specs": SPECS.to_json()})


def rate(successes: float, low: float, high: float, name: str) -> dict[str, object]:
    return {f"{name}_rate": successes, f"{name}_interval": [low, high]}


def stage(directory: Path, name: str, result: dict[str, object]) -> None:
    (directory / f"{name}.json").write_text(json.dumps(
        {"title": name, "command": f"safe-policy {name}", "seconds": 1.0, "result": result}))


def full_run(directory: Path) -> None:
    path = directory / "episode.hdf5"
    write_episode(path, episode(10))
    log = directory / "metrics.jsonl"
    log.write_text("".join(json.dumps({"step": step, "world_model_loss": 1.0 / (step + 1)}) + "\n"
                           for step in range(5)) + '{"step": 5, "worl')
    gate = {"state": "HOLD", "accepted": 123, "rejected": 4, "reason": "", "epoch": 1}
    stage(directory, "teleoperate", {"files": [str(path)], "gate": gate})
    stage(directory, "pretrain", {"log": str(log)})
    for name, success in (("before", 0.5), ("after", 0.9)):
        stage(directory, name, {"episodes": 20, "task": "more_obstacles", **rate(0.05, 0.0, 0.2, "violation"),
                                **rate(success, success - 0.1, success + 0.1, "success")})
    row = {"steps": 10, "success": True, "violation": False, "episode_return": 1.0, "episode_cost": 0.0,
           "online_share": 0.5, "message": "", "path": str(path)}
    stage(directory, "finetune", {"episodes": [row, row | {"violation": True, "message": "<b>stale</b>"}],
                                  "violations": 1, "faults": [], "gate": gate})


def test_page_shows_every_stage_and_needs_nothing_from_outside(tmp_path: Path) -> None:
    full_run(tmp_path)
    result = Report(tmp_path).run()
    page = Path(result["report"]).read_text()
    for text in ("50% → 90%", "world_model_loss", "123", "data:image/png;base64", "more_obstacles", "1 violations"):
        assert text in page
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", "")
    assert "<b>stale</b>" not in page, "text from a run must be escaped"


def test_overlapping_intervals_are_called_no_evidence(tmp_path: Path) -> None:
    full_run(tmp_path)
    stage(tmp_path, "after", {"episodes": 20, "task": "more_obstacles", **rate(0.55, 0.45, 0.7, "success"),
                              **rate(0.05, 0.0, 0.2, "violation")})
    assert "no evidence of a change" in Path(Report(tmp_path).run()["report"]).read_text()


def test_what_the_policy_said_of_its_safety_is_compared_with_what_happened(tmp_path: Path) -> None:
    full_run(tmp_path)
    bins = [{"low": 0.1 * number, "high": 0.1 * number + 0.1, "count": 40, "predicted": 0.1 * number + 0.05,
             "observed": 0.3} for number in range(3)]
    stage(tmp_path, "before", json.loads((tmp_path / "before.json").read_text())["result"] | {
        "calibration": {"bins": bins, "error": 0.1234, "brier": 0.0678}, "calibration_discount": 0.99,
        "policy_shares": {"offline": 0.25, "online": 0.75}})
    page = Path(Report(tmp_path).run()["report"]).read_text()
    for text in ("What the policy said of its safety", "0.068", "0.123", "offline 25%, online 75%"):
        assert text in page
    full_run(tmp_path)  # a policy that says nothing of it
    assert "What the policy said" not in Path(Report(tmp_path).run()["report"]).read_text()


def test_a_stage_that_did_not_run_is_left_out(tmp_path: Path) -> None:
    stage(tmp_path, "pretrain", {})
    page = Path(Report(tmp_path).run()["report"]).read_text()
    assert "violations" not in page


def test_bad_runs_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no stage"):
        Report(tmp_path).run()
    (tmp_path / "before.json").write_text("{")
    with pytest.raises(DatasetError, match=r"before\.json"):
        Report(tmp_path).run()


def test_torn_last_line_of_a_log_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"st')
    assert read_jsonl(path) == [{"step": 1}]
