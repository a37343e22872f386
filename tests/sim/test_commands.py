"""`safe-policy pretrain`, `evaluate` and `finetune` on SafeReach, as a user calls them."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from safe_policy_core.checkpoint import read_manifest
from safe_policy_core.commands import Evaluate, Finetune, Pretrain
from safe_policy_core.data.episodes import EpisodeStore, write_episode
from safe_policy_core.errors import ConfigurationError, UserError
from sim.safe_reach.collection import record
from sim.safe_reach.environment import SafeReachEnv

SETTINGS = {
    "bc": ("depth=4", "units=16", "layers=1"),
    "fosp": ("units=16", "layers=1", "imagination_starts=8", "horizon=2", "world_model.depth=4", "world_model.deter=16",
             "world_model.units=16", "world_model.latents=4", "world_model.classes=4", "table_map.cells=20"),
}


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory: pytest.TempPathFactory, safe_reach: SafeReachEnv) -> Path:
    folder = tmp_path_factory.mktemp("demonstrations")
    for seed in range(3):
        write_episode(folder / f"{seed}.h5", record(safe_reach, "safe_reach", 10 + seed))
    return folder


def pretrain(method: str, data: Path, out: Path, **options: object) -> dict:
    return Pretrain(method, (data,), out, steps=3, set=SETTINGS[method], batch=2, length=4, **options).run()  # type: ignore[arg-type]


@pytest.mark.parametrize("method", SETTINGS)
def test_from_demonstrations_to_a_finetuned_policy(tmp_path: Path, demonstrations: Path, method: str) -> None:
    trained = pretrain(method, demonstrations, tmp_path / "run")
    assert Path(trained["log"]).read_text().count("\n") == 1
    assert trained["episodes"] == 3

    tested = Evaluate(tmp_path / "run", "original", episodes=1, seed=5).run()
    assert tested["sha256"] == trained["sha256"] == read_manifest(tmp_path / "run")["sha256"]
    assert (tested["episodes"], tested["task"], len(tested["rows"])) == (1, "original", 1)
    assert tested["success_interval"][0] <= tested["success_rate"] <= tested["success_interval"][1]
    assert (tested["calibration"] is not None) == (method == "fosp")

    tuned = Finetune(tmp_path / "run", "more_obstacles", (demonstrations,), tmp_path / "tuned", episodes=1,
                     updates=2, batch=2, length=4).run()
    assert EpisodeStore(tmp_path / "tuned" / "episodes").summaries[0].metadata["task"] == "more_obstacles"
    assert (tuned["episodes"][0]["online_share"] is not None) == (method == "fosp")  # policy expansion
    manifest = read_manifest(tuned["checkpoint"])
    if method == "fosp":  # behaviour cloning does not learn from an episode that failed
        assert manifest["sha256"] != trained["sha256"]
        assert manifest["extra"]["fine_tuning"]["episodes"] == 1
    json.dumps([trained, tested, tuned])


def test_a_finished_run_is_exported_small(tmp_path: Path, demonstrations: Path) -> None:
    trained = pretrain("fosp", demonstrations, tmp_path / "run")
    again = Pretrain("fosp", (demonstrations,), tmp_path / "run", steps=3, set=SETTINGS["fosp"], batch=2, length=4,
                     resume=True, export=tmp_path / "small").run()
    whole, small = read_manifest(tmp_path / "run"), read_manifest(tmp_path / "small")
    assert again["sha256"] == trained["sha256"] and small["step"] == 3
    assert (small["command"], small["data_hash"]) == (whole["command"], whole["data_hash"])
    size = {name: (tmp_path / name / "model.safetensors").stat().st_size for name in ("run/checkpoint", "small")}
    assert size["small"] < size["run/checkpoint"] / 4
    assert Evaluate(tmp_path / "small", "original", episodes=1, seed=5).run()["episodes"] == 1
    with pytest.raises(ConfigurationError, match="export: bc has no small form"):
        Pretrain("bc", (demonstrations,), tmp_path / "bc", export=tmp_path / "no").run()


def test_wrong_use_is_named(tmp_path: Path, demonstrations: Path) -> None:
    run = tmp_path / "run"
    pretrain("bc", demonstrations, run)
    (tmp_path / "used" / "checkpoint").mkdir(parents=True)
    good = Pretrain("bc", (demonstrations,), tmp_path / "other")
    cases: dict[str, Pretrain | Evaluate | Finetune] = {
        "out: .*resume": dataclasses.replace(good, out=run),
        "method: unknown name 'telepathy'": dataclasses.replace(good, method="telepathy"),
        "steps: expected a number above 0": dataclasses.replace(good, steps=0),
        "batch": dataclasses.replace(good, batch=-1),
        "device: 'cuda:99'": dataclasses.replace(good, device="cuda:99"),
        "init: .* is of method 'bc', expected 'fosp'": dataclasses.replace(good, method="fosp", init=run),
        "init: a checkpoint brings": dataclasses.replace(good, init=run, set=("units=3",)),
        "nowhere": dataclasses.replace(good, data=(tmp_path / "nowhere",)),
        "task: unknown 'nope'": Evaluate(run, "nope"),
        "episodes": Evaluate(run, "original", episodes=0),
        "SafetyPointGoal1-v0 does not fit": Evaluate(run, "SafetyPointGoal1-v0"),
        "out: .*start from": Finetune(run, "original", (demonstrations,), run),
        "out: .*used.* exists": Finetune(run, "original", (demonstrations,), tmp_path / "used"),
        "updates": Finetune(run, "original", (demonstrations,), tmp_path / "tuned", updates=-1),
    }
    for message, command in cases.items():
        with pytest.raises(UserError, match=message):
            command.run()


def test_pretraining_from_other_weights(tmp_path: Path, demonstrations: Path) -> None:
    pretrain("bc", demonstrations, tmp_path / "first")
    more = Pretrain("bc", (demonstrations,), tmp_path / "second", steps=2, init=tmp_path / "first", batch=2).run()
    manifest = read_manifest(tmp_path / "second")
    assert manifest["config"] == read_manifest(tmp_path / "first")["config"]
    assert manifest["step"] == 5
    assert more["steps"] == 2


def test_broken_files_are_left_out_only_when_asked(tmp_path: Path, demonstrations: Path) -> None:
    bad = tmp_path / "bad.h5"
    bad.write_bytes((demonstrations / "0.h5").read_bytes()[:1000])
    command = Pretrain("bc", (demonstrations, bad), tmp_path / "run", steps=1, batch=2, set=SETTINGS["bc"])
    with pytest.raises(UserError, match=r"bad\.h5"):
        command.run()
    assert dataclasses.replace(command, skip_broken=True).run()["broken"] == [str(bad)]


def test_a_killed_pretraining_resumes_exactly(tmp_path: Path, demonstrations: Path) -> None:
    """A real process is killed while it trains; resumed, its weights are those of a run that was not."""
    def command(out: Path) -> list[str]:
        return [sys.executable, "-m", "safe_policy_core.cli", "pretrain", "bc", "--data", str(demonstrations), "--out",
                str(out), "--steps", "60", "--batch", "8", "--checkpoint-every", "5", "--set", *SETTINGS["bc"],
                "--json"]

    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    whole = subprocess.run(command(tmp_path / "whole"), env=environment, capture_output=True, text=True, check=True)
    victim = subprocess.Popen(command(tmp_path / "cut"), env=environment, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)
    log = tmp_path / "cut" / "metrics.jsonl"
    while victim.poll() is None and not (log.exists() and log.read_text().count("\n") >= 3):
        time.sleep(0.01)
    victim.kill()
    victim.wait()
    assert read_manifest(tmp_path / "cut")["extra"]["offline"]["step"] >= 5
    resumed = subprocess.run([*command(tmp_path / "cut"), "--resume"], env=environment, capture_output=True, text=True,
                             check=True)
    results = [json.loads(run.stdout.splitlines()[-1]) for run in (whole, resumed)]
    assert results[0]["sha256"] == results[1]["sha256"]
    assert (tmp_path / "whole" / "metrics.jsonl").read_text() == log.read_text()


def test_arming_is_for_the_graph_only() -> None:
    with pytest.raises(ConfigurationError, match="arm"):
        Finetune(Path("x"), "original", (), Path("y"), arm=True).run()
