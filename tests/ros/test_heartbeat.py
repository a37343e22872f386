"""Who must be there during an episode, the camera's beat in the control period, and the operator's console."""

import os
import signal
import subprocess

import numpy as np
import pytest

pytest.importorskip("safe_policy_interfaces", reason="the ROS workspace is not built; run make setup")

import rclpy
from safe_policy_ros.console import LABEL_TIME, OperatorConsole
from safe_policy_ros.heartbeat import BEAT_PERIOD, LOST_AFTER, Heartbeat, Presence, process_state
from safe_policy_ros.pacer import Pacer

from data_collection.devices.keyboard import Terminal
from tests.ros.graph import ros_domain, wait_for

pytestmark = pytest.mark.ros


def test_who_was_there_at_the_beginning_must_stay():
    presence = Presence(("teleop", "recorder", "fine_tuner"))
    presence.heard("recorder", "on another machine", 10.0)
    presence.heard("teleop", "", 5.0)
    assert presence.begin(10.1) == {"recorder"}
    assert presence.lost(10.0 + LOST_AFTER) == ""
    assert presence.lost(10.0 + LOST_AFTER + 0.001) == "recorder"
    presence.heard("recorder", "on another machine", 12.0)
    assert presence.lost(12.0 + 2 * BEAT_PERIOD) == ""


def test_a_beat_that_is_late_on_its_way_does_not_make_its_sender_look_dead_again():
    presence = Presence(("teleop",))
    presence.heard("teleop", "", 10.1)
    presence.heard("teleop", "", 10.0)
    presence.begin(10.2)
    assert presence.lost(10.1 + LOST_AFTER) == ""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_of_this_machine_is_missed_at_once(how):
    child = subprocess.Popen(["sleep", "60"])
    try:
        presence = Presence(("recorder",))
        presence.heard("recorder", f"{child.pid} {process_state(child.pid)[1]}", 10.0)
        presence.begin(10.0)
        assert presence.lost(10.0) == ""
        child.send_signal(how)
        wait_for(lambda: presence.lost(10.0) == "recorder", 1.0, "its loss, without any time having passed")
    finally:
        child.kill()
        child.wait()
    assert presence.lost(10.0) == "recorder"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs real-time priority")
def test_a_beat_does_not_wait_behind_what_the_machine_computes():
    with ros_domain() as domain:
        rclpy.init(domain_id=domain)
        node = rclpy.create_node("beats")
        beats = Heartbeat(node, "beats")
        try:
            wait_for(lambda: os.sched_getscheduler(beats._thread.native_id) == os.SCHED_FIFO, 1.0, "its priority")
            assert os.sched_getscheduler(0) == os.SCHED_OTHER
        finally:
            beats.close()
            node.destroy_node()
            rclpy.shutdown()


def test_another_process_of_the_same_number_is_another():
    presence = Presence(("recorder",), look=lambda pid: ("S", "77"))
    presence.heard("recorder", "1234 77", 10.0)
    presence.begin(10.0)
    assert presence.lost(10.0) == ""
    presence._look = lambda pid: ("S", "99")
    assert presence.lost(10.0) == "recorder"


@pytest.mark.parametrize("interval", [1 / 30, 1 / 29.97, 1 / 30.3])
def test_the_control_period_keeps_step_with_the_camera(interval):
    """From any phase; with a picture's lateness of 3 ms the age at the end of a step is that lateness."""
    pacer, rng = Pacer(0.1), np.random.default_rng(0)
    arrivals = 100.0 + np.cumsum(np.full(3000, interval)) + rng.uniform(0, 0.003, 3000)
    now, ages, ends = 100.02, [], []
    for _ in range(600):
        deadline = pacer.next(now)
        due = arrivals[(arrivals >= deadline - 0.0166) & (arrivals <= deadline + 0.0166)]
        now = due[0] if len(due) else deadline + 0.0166
        if len(due):
            pacer.follow(due[0])
        ages.append(now - arrivals[arrivals <= now][-1])
        ends.append(now)
    assert np.max(ages[5:]) < 0.001
    assert np.median(np.diff(ends)) == pytest.approx(3 * interval, abs=0.001)
    assert np.diff(ends).max() < 0.14, "the gate waits 150 ms"
    assert pacer.overruns == 0


@pytest.fixture
def console():
    operator, program = os.openpty()
    labels = []
    made = OperatorConsole(Terminal(program), lambda kind, level: labels.append((kind, level)))
    yield operator, made, labels
    made.close()
    os.close(operator)
    os.close(program)


def test_keys_set_labels_for_a_few_steps(console):
    operator, made, labels = console
    os.write(operator, b"12")
    made.poll(1.0)
    assert labels == [("reward", 1.0), ("cost", 1.0)]
    os.write(operator, b"2")
    made.poll(1.0 + LABEL_TIME)
    made.poll(1.0 + LABEL_TIME + 0.01)
    assert labels[2:] == [("reward", 0.0)], "a key that is held holds its label"
    made.poll(1.0 + 2 * LABEL_TIME + 0.02)
    assert labels[3:] == [("cost", 0.0)]


def test_abort_pause_and_stop(console):
    operator, made, labels = console
    os.write(operator, b"x")
    made.poll(0.0)
    assert labels == [("abort", 1.0)]
    os.write(operator, b"p")
    made.poll(0.1)
    assert made.paused
    os.write(operator, b"p")
    made.wait_while_paused()
    assert not made.paused and not made.stopped
    os.write(operator, b"pq")
    made.poll(0.2)
    made.wait_while_paused()
    assert made.stopped
    made.close()
    assert labels[-1] == ("abort", 0.0)


def test_without_a_terminal_nothing_is_ever_pressed():
    made = OperatorConsole(None, lambda *_: pytest.fail("a label from nowhere"))
    made.poll(0.0)
    assert not made.paused
    made.close()
