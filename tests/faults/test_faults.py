"""A few of the faults of `make faults`, once each, with the suite's own sender in the policy's place."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import pytest

pytest.importorskip("rclpy")

from tests.faults.fault import SENDER, Outcome, run_once
from tests.faults.graph import fault_world
from tests.faults.suite import FAULTS
from tests.faults.table import REACTION, Runs, failures
from tests.faults.world import FaultWorld

pytestmark = pytest.mark.ros
SLOWEST_STOP = REACTION + 0.45
"""[s] With the braking, which takes 0.2 s on a machine that does nothing else."""
CHOSEN = ("operator_stop", "command_nan", "second_publisher", "hang_safety_gate", "hang_franka")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultWorld]:
    with fault_world(tmp_path_factory.mktemp("faults"), patient=True) as running:
        yield running


@pytest.mark.parametrize("name", CHOSEN)
def test_the_arm_comes_to_rest_and_stays_so_until_it_is_armed(world: FaultWorld, name: str) -> None:
    fault = next(fault for fault in FAULTS if fault.name == name)
    outcome = run_once(world, dataclasses.replace(fault, driver=SENDER), 0)
    assert outcome.stop < SLOWEST_STOP, outcome
    assert outcome.diagnosed and outcome.rearm, outcome


def test_the_table_names_what_falls_short(tmp_path) -> None:
    runs = Runs(tmp_path / "runs.jsonl")
    for stop in (0.2, 0.22):
        runs.add("operator_stop", Outcome(stop, 0.01, 0, True, True, "", ""))
    runs.add("late", Outcome(0.4, 0.1, 0, True, True, "", ""))
    runs.add("never", Outcome(math.inf, 0.1, 1, False, True, "", ""))
    again = Runs(tmp_path / "runs.jsonl")
    assert again.count("operator_stop") == 2
    table = again.table(["operator_stop", "late", "never", "absent"])
    assert [(row["fault"], row["stop_ms_median"], row["stop_ms_max"]) for row in table] == [
        ("operator_stop", 210, 220), ("late", 400, 400), ("never", math.inf, math.inf)]
    short = failures(table)
    assert [line.partition(":")[0] for line in short] == ["late", "never", "never", "never"]
    assert "the bar is 370 ms" in short[0]
