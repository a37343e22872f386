"""The teleop node: the scripted operator as a process over DDS, the SpaceMouse with reports in place of USB."""

import contextlib
import signal
import time

import numpy as np
import pytest

pytest.importorskip("safe_policy_interfaces", reason="the ROS workspace is not built; run make setup")

from safe_policy_interfaces.msg import EpisodeState
from safe_policy_ros.messages import BASE_FRAME, stamp_to_ns
from safe_policy_ros.spinner import Spinner
from safe_policy_ros.teleop_node import TeleopNode

from sim.safe_reach import task
from sim.safe_reach.expert import clearance
from sim.safe_reach.layouts import sample_layout
from tests.data_collection.test_spacemouse import FULL, buttons, mouse, translation
from tests.ros.graph import ros_domain, ros_graph, wait_for
from tests.ros.teleop_probe import TeleopProbe

pytestmark = pytest.mark.ros

TOUCH = 0.03
"""[m] Tool this close to the target's centre touches it: its radius and half the fingers."""


@pytest.fixture(scope="module")
def scripted(tmp_path_factory):
    with (ros_graph(tmp_path_factory.mktemp("teleop")) as graph,
          contextlib.closing(TeleopProbe(graph.domain)) as probe):
        node = graph.node("teleop_node", device="scripted")
        probe.wait_for_teleop()
        yield node, probe


def drive(probe, episode_id, seed, name="original", timeout=20.0):
    """Announces an episode and returns (layout, path (N, 3), commands (M, 6)) until the target is touched."""
    layout = sample_layout(name, seed)
    target = np.array([layout.target.x, layout.target.y])
    probe.wait_for_rest()
    probe.place(task.start_pose(seed))
    probe.commands.clear()
    probe.announce(EpisodeState.RUNNING, episode_id, seed=seed, metadata={"layout": layout.to_json()})
    try:
        wait_for(lambda: np.linalg.norm(probe.position[:2] - target) < TOUCH, timeout, "the target is touched")
    finally:
        probe.announce(EpisodeState.ENDED, episode_id)
    return layout, np.array(probe.path), probe.twists()


@pytest.mark.parametrize(("seed", "name"), [(1, "original"), (2, "more_obstacles"), (5, "random_layout")])
def test_the_scripted_operator_reaches_the_target_and_halts(scripted, seed, name):
    _, probe = scripted
    layout, path, twists = drive(probe, f"reach-{seed}", seed, name)
    assert np.linalg.norm(twists[:, :3], axis=1).max() <= np.sqrt(3) * 0.15 + 1e-6, "the largest speed [m/s]"
    assert clearance(path[:, :2], layout).min() > 0.008, "the fingers do not touch an obstacle [m]"
    gaps = np.diff([received for received, _ in probe.commands])
    assert np.median(gaps) < 0.075, "half of what the gate takes for a fault [s]"
    wait_for(lambda: not probe.twists()[-1].any(), 3.0, "an explicit zero")
    probe.wait_for_rest()
    assert not probe.twists()[-1].any(), "silence only after a halt"


def test_commands_and_joystick_carry_frame_and_time(scripted):
    _, probe = scripted
    probe.joys.clear()
    before = time.time_ns()
    drive(probe, "stamps", 3)
    after = time.time_ns()
    stamps = [stamp_to_ns(m.header.stamp) for _, m in probe.commands]
    assert {m.header.frame_id for _, m in probe.commands} == {BASE_FRAME}
    assert before < stamps[0] and stamps[-1] < after and (np.diff(stamps) > 0).all()
    moving = [joy.axes for joy in probe.joys if any(joy.axes)]
    assert moving and np.abs(moving).max() <= 1


def test_the_scripted_operator_leaves_other_peoples_episodes_alone(scripted):
    _, probe = scripted
    probe.wait_for_rest()
    probe.commands.clear()
    probe.announce(EpisodeState.RUNNING, "mine", operator="somebody",
                   metadata={"layout": sample_layout("original", 1).to_json()})
    time.sleep(0.5)
    assert probe.commands == []
    probe.announce(EpisodeState.ENDED, "mine", operator="somebody")


def test_without_a_layout_it_says_so_and_stays_at_rest(scripted):
    node, probe = scripted
    probe.wait_for_rest()
    probe.commands.clear()
    for index, metadata in enumerate(({}, {"layout": {}}, {"layout": task.Layout().to_json()}, [], "x")):
        probe.announce(EpisodeState.RUNNING, f"blind-{index}", metadata=metadata)
        wait_for(lambda index=index: f"blind-{index}: the scripted operator needs the layout" in node.output, 5.0,
                 "a line")
    assert probe.commands == [] and node.poll() is None
    probe.announce(EpisodeState.ENDED, "blind-2")


def test_without_poses_it_lets_go(scripted):
    _, probe = scripted
    layout = sample_layout("original", 4)
    probe.place(task.start_pose(4))
    probe.commands.clear()
    probe.announce(EpisodeState.RUNNING, "frozen", seed=4, metadata={"layout": layout.to_json()})
    wait_for(lambda: probe.twists().any(), 5.0, "it drives")
    probe.timer.cancel()
    try:
        wait_for(lambda: not probe.twists()[-1].any(), 3.0, "it halts without poses")
    finally:
        probe.timer.reset()
        probe.announce(EpisodeState.ENDED, "frozen")


def test_a_signal_leaves_the_arm_with_a_halt(tmp_path):
    with ros_graph(tmp_path) as graph, contextlib.closing(TeleopProbe(graph.domain)) as probe:
        node = graph.node("teleop_node", device="scripted")
        probe.wait_for_teleop()
        layout = sample_layout("original", 4)
        probe.place(task.start_pose(4))
        probe.announce(EpisodeState.RUNNING, "stopped", seed=4, metadata={"layout": layout.to_json()})
        wait_for(lambda: probe.twists().any(), 5.0, "it drives")
        node.signal(signal.SIGTERM)
        assert node.wait(10.0) == 0, node.output
        time.sleep(0.1)
        assert not probe.twists()[-1].any()


@pytest.mark.parametrize(("parameters", "expected"), [
    ({"device": "spacemouse"}, "70-spacemouse.rules"),
    ({"device": "joystick"}, "expected one of spacemouse, keyboard, scripted, none"),
    ({"deadband": 2.0}, "deadband"),
    ({"buttons": "[reward, coffee]"}, "coffee"),
    ({"device": "keyboard"}, "no terminal"),
])
def test_what_cannot_work_ends_with_one_line(tmp_path, parameters, expected):
    with ros_graph(tmp_path) as graph:
        node = graph.node("teleop_node", **parameters)
        assert node.wait(40.0) == 2, node.output
        lines = [line for line in node.output.splitlines() if "FATAL" in line]
        assert len(lines) == 1 and expected in lines[0] and "Traceback" not in node.output


def test_the_spacemouse_commands_labels_and_rests():
    with ros_domain() as domain, contextlib.closing(TeleopProbe(domain)) as probe:
        device, source = mouse()
        node = TeleopNode(device, context=probe.context)
        spinner = Spinner(node)
        try:
            wait_for(lambda: node.count_subscribers("/labels") and node.count_subscribers("/teleop/joy")
                     and probe.node.count_publishers("/teleop/delta_twist_cmds"), 10.0, "connections")
            time.sleep(0.3)
            assert probe.commands == [], "a device at rest says nothing"
            source.reports.append(translation(y=-FULL))
            wait_for(lambda: len(probe.commands) > 10, 5.0, "commands at 100 Hz")
            np.testing.assert_allclose(probe.twists()[-1], [0.15, 0, 0, 0, 0, 0], atol=1e-9)  # m/s
            source.reports.append(translation())
            wait_for(lambda: not probe.twists()[-1].any(), 3.0, "an explicit zero")
            source.reports.append(buttons(2))
            wait_for(lambda: len(probe.labels) == 1, 3.0, "a label")
            source.reports.append(buttons(0))
            wait_for(lambda: len(probe.labels) == 2, 3.0, "its end")
            assert [(m.kind, m.value, m.source) for m in probe.labels] == [("cost", 1.0, "button"),
                                                                          ("cost", 0.0, "button")]
            wait_for(lambda: any(list(joy.buttons) == [0, 1] for joy in probe.joys), 3.0, "the button in a Joy")
        finally:
            spinner.close()
            node.close()
            node.destroy_node()
