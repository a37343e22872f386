"""The camera node with a recorded RealSense, another node's topic, and the simulated scene, as processes over DDS."""

import contextlib
import re
import time

import numpy as np
import pytest

pytest.importorskip("safe_policy_interfaces", reason="the ROS workspace is not built; run make setup")

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.context import Context
from safe_policy_interfaces.msg import FrameStatus
from safe_policy_ros import qos
from safe_policy_ros.camera_node import CameraNode
from safe_policy_ros.cameras.camera import Frame
from safe_policy_ros.cameras.device_clock import DeviceClock
from safe_policy_ros.cameras.frozen import FrozenWatch
from safe_policy_ros.cameras.software_device import FOCAL, HEIGHT, WIDTH, record
from safe_policy_ros.messages import image_from_msg, image_to_msg, stamp_to_ns
from safe_policy_ros.spinner import Spinner
from sensor_msgs.msg import CameraInfo, Image

from tests.ros.graph import ros_domain, ros_graph, wait_for

pytestmark = pytest.mark.ros

FRAMES = 20


def picture(number):
    """(480, 640, 3) that names its number in every pixel of the first channel, and is RGB by its colours."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[..., 0] = 10 * number
    image[:, :WIDTH // 2, 2] = 255
    return image


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """A .db3 as a D435 would leave it, made with librealsense's own recorder from a software device."""
    path = tmp_path_factory.mktemp("realsense") / "camera.db3"
    record(path, [picture(number) for number in range(FRAMES)])
    return str(path)


class Viewer:
    """Listens to the camera topics, with a deeper queue than the policy so that nothing seen is lost here."""

    def __init__(self, domain):
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node("viewer", context=self.context)
        self.images, self.infos, self.statuses, self.health = [], [], [], []
        self.node.create_subscription(FrameStatus, "/camera/frame_status", self.statuses.append, qos.SENSOR)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", lambda m: self.health.append(m.status[0]),
                                      qos.STATUS)
        self.node.create_subscription(Image, "/camera/color/image_raw",
                                      lambda m: self.images.append((time.time_ns(), m)), qos.SENSOR)
        self.node.create_subscription(CameraInfo, "/camera/color/camera_info", self.infos.append, qos.SENSOR)
        self.spinner = Spinner(self.node)

    def wait_for_images(self, count):
        wait_for(lambda: len(self.images) >= count, 60.0, f"{count} pictures")

    def close(self):
        self.spinner.close()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)


@contextlib.contextmanager
def viewing(directory):
    with ros_graph(directory) as graph, contextlib.closing(Viewer(graph.domain)) as viewer:
        yield graph, viewer


def test_a_recorded_realsense_goes_through_the_real_pipeline(tmp_path, recording):
    with viewing(tmp_path) as (graph, viewer):
        node = graph.node("camera_node", camera="realsense", file=recording, repeat=True)
        viewer.wait_for_images(30)
        images = list(viewer.images)
        for received, message in images:
            image = image_from_msg(message)
            np.testing.assert_array_equal(image, picture(image[0, 0, 0] // 10))
            assert 0 <= received - stamp_to_ns(message.header.stamp) < 5e9, "stamped when it was captured"
            assert message.header.frame_id == "camera_color_optical_frame"
        stamps = [stamp_to_ns(m.header.stamp) for _, m in images]
        assert (np.diff(stamps) > 0).all()
        info = viewer.infos[0]
        assert (info.k[0], info.k[4]) == FOCAL and list(info.d) == pytest.approx([0.1, 0.01, 0, 0, 0])
        assert (info.width, info.height) == (WIDTH, HEIGHT)
        assert {stamp_to_ns(m.header.stamp) for m in viewer.infos} & set(stamps), "the same stamp as its picture"
        numbers = [status.sequence for status in viewer.statuses]
        assert len(numbers) > 25 and (np.diff(numbers) > 0).all()
        assert not any(status.repeated for status in viewer.statuses)
        wait_for(lambda: any(status.level == b"\x00" for status in viewer.health), 5.0, "a healthy report")
        assert node.stop() == 0, node.output
        assert "a second, longest gap" in node.output, "the measured rate is told at the end"


def test_a_file_ends_once_it_is_played(tmp_path, recording):
    with viewing(tmp_path) as (graph, _):
        node = graph.node("camera_node", camera="realsense", file=recording)
        assert node.wait(60.0) == 0, node.output
        counted = re.search(r"(\d+) pictures in", node.output)
        assert "played to its end" in node.output
        assert FRAMES - 3 <= int(counted[1]) <= FRAMES, "the pipeline may drop the first ones while it starts"


def test_another_nodes_topic_is_passed_on_with_its_stamps(tmp_path):
    with viewing(tmp_path) as (graph, viewer):
        source = viewer.node.create_publisher(Image, "/d435/color/image_raw", qos.SENSOR)
        graph.node("camera_node", camera="ros_topic", topic="/d435/color/image_raw")
        wait_for(source.get_subscription_count, 40.0, "the camera node listens")
        sent = {}
        for number in range(25):
            now = time.time_ns()
            sent[now] = picture(number % 20)[::8, ::8]
            source.publish(image_to_msg(sent[now], now))
            time.sleep(0.05)
        viewer.wait_for_images(5)
        for _, message in viewer.images:
            np.testing.assert_array_equal(image_from_msg(message), sent[stamp_to_ns(message.header.stamp)])


def test_the_simulated_scene_is_shown_fresh(tmp_path):
    with viewing(tmp_path) as (graph, viewer):
        server = graph.python("server", "-m", "sim.safe_reach.server", "--link", "5691")
        node = graph.node("camera_node", camera="simulated", address="127.0.0.1:5691", width=96, height=64)
        viewer.wait_for_images(20)
        images = [m for _, m in viewer.images]
        assert {(m.width, m.height) for m in images} == {(96, 64)}
        assert (np.diff([stamp_to_ns(m.header.stamp) for m in images]) > 0).all()
        image = image_from_msg(images[-1])
        assert image.std() > 5, "not a blank picture"
        focal = 32 / np.tan(np.radians(17.5) / 2)
        assert viewer.infos[0].k[4] == pytest.approx(focal)
        server.stop()
        time.sleep(0.5)
        count = len(viewer.images)
        assert node.wait(20.0) == 2
        assert len(viewer.images) <= count + 1, "a dead scene is not shown again and again with new stamps"
        assert "stands still" in node.output or "does not answer" in node.output


@pytest.mark.parametrize(("parameters", "expected"), [
    ({"camera": "realsense"}, "not connected (found: none); plug it into a USB 3 port"),
    ({"camera": "realsense", "file": "/nowhere.db3"}, "/nowhere.db3: no such file"),
    ({"camera": "webcam"}, "expected one of simulated, realsense, ros_topic"),
    ({"camera": "ros_topic"}, "parameter topic: missing"),
    ({"camera": "simulated", "width": 1000}, "at most 640 x 480"),
    ({"fps": 1000.0}, "fps"),
])
def test_what_cannot_work_ends_with_one_line(tmp_path, parameters, expected):
    with ros_graph(tmp_path) as graph:
        node = graph.node("camera_node", **parameters)
        assert node.wait(40.0) == 2, node.output
        lines = [line for line in node.output.splitlines() if "FATAL" in line]
        assert len(lines) == 1 and expected in lines[0] and "Traceback" not in node.output


def test_a_damaged_recording_is_named(tmp_path):
    (tmp_path / "bad.db3").write_bytes(b"not a database" * 100)
    with ros_graph(tmp_path) as graph:
        node = graph.node("camera_node", camera="realsense", file=tmp_path / "bad.db3")
        assert node.wait(40.0) == 2, node.output
        assert "bad.db3" in node.output and "Traceback" not in node.output


def test_a_frozen_camera_is_told_and_not_shown(tmp_path):
    with viewing(tmp_path) as (graph, viewer):
        source = viewer.node.create_publisher(Image, "/d435/color/image_raw", qos.SENSOR)
        graph.node("camera_node", camera="ros_topic", topic="/d435/color/image_raw")
        wait_for(source.get_subscription_count, 40.0, "the camera node listens")
        wait_for(lambda: source.publish(image_to_msg(picture(len(viewer.images))[::8, ::8], time.time_ns()))
                 or time.sleep(0.03) or len(viewer.images) > 3, 10.0, "pictures")
        frozen, shown = picture(19)[::8, ::8], len(viewer.images)
        for _ in range(40):  # the same picture with new stamps, as a driver sends whose buffer no longer changes
            source.publish(image_to_msg(frozen, time.time_ns()))
            time.sleep(0.03)
        assert len(viewer.images) - shown <= 3, "two equal pictures may be chance, the third is not"
        assert [status.repeated for status in viewer.statuses[-30:]] == [True] * 30
        wait_for(lambda: viewer.health and "frozen" in viewer.health[-1].message, 3.0, "the diagnostics")
        assert viewer.health[-1].level == b"\x02"
        source.publish(image_to_msg(picture(3)[::8, ::8], time.time_ns()))
        wait_for(lambda: not viewer.statuses[-1].repeated, 3.0, "a new picture is new")


def test_a_lost_realsense_is_opened_anew(recording):
    """The playback stands still, as a device does whose cable was pulled; to open it again is to plug it in."""
    with ros_domain() as domain:
        rclpy.init(domain_id=domain, args=["--ros-args", "-p", "camera:=realsense", "-p", f"file:={recording}", "-p",
                                           "repeat:=true"])
        try:
            node = CameraNode()
            for _ in range(5):
                assert node.work()
            node._camera._playback.pause()
            lost = node._camera
            wait_for(lambda: node.work() and node._camera is None, 5.0, "the loss")
            assert "no picture for" in node._record.trouble
            wait_for(lambda: node.work() and node._camera is not None, 5.0, "the camera is back")
            frames = node._record._frames
            wait_for(lambda: node.work() and node._record._frames > frames + 3, 5.0, "pictures again")
            assert node._camera is not lost and node._record.trouble == ""
            node.close()
            node.destroy_node()
        finally:
            rclpy.try_shutdown()


def test_device_times_become_host_times_within_the_quickest_journey():
    """A device clock that started at its own zero and runs 50 ppm fast; frames take 5 ms plus up to 12 ms of chance."""
    clock, rng = DeviceClock(), np.random.default_rng(0)
    capture = 1_700_000_000_000_000_000 + np.arange(3000) * 33_333_333
    device = ((capture - capture[0]) * (1 + 50e-6)).astype(np.int64)
    arrival = capture + 5_000_000 + rng.exponential(3_000_000, len(capture)).clip(0, 12_000_000).astype(np.int64)
    mapped = np.array([clock.to_host(d, a) for d, a in zip(device.tolist(), arrival.tolist(), strict=True)])
    assert (mapped <= arrival).all() and (np.diff(mapped) > 0).all()
    late_ms = (mapped - capture)[100:] / 1e6
    assert late_ms.min() > 4.9 and late_ms.max() < 6.5, "the constant part of the journey stays, its jitter goes"


def test_a_clock_that_is_set_begins_the_mapping_anew():
    clock = DeviceClock()
    for i in range(10):
        clock.to_host(i * 33_000_000, 10**18 + i * 33_000_000)
    for step in (10 * 10**9, -10 * 10**9):
        arrival = 10**18 + step + 400_000_000
        assert clock.to_host(11 * 33_000_000, arrival) == arrival
    assert clock.to_host(0, 10**18 + 9 * 10**9) == 10**18 + 9 * 10**9, "a recording that starts over"


def frame(number, value, time_ns):
    return Frame(np.full((4, 4, 3), value, np.uint8), time_ns, number)


def test_frozen_and_lost_frames_are_counted():
    watch = FrozenWatch(identical=3)
    rows = [(1, 1, 1), (2, 2, 2), (2, 3, 3), (3, 4, 3), (6, 5, 6), (7, 5, 7), (8, 5, 8), (9, 6, 9), (2, 7, 10)]
    seen = [watch.look(frame(*row)) for row in rows]
    assert [s.repeated for s in seen] == [False, False, True, True, False, False, True, False, False], \
        "same number, same stamp, third equal picture"
    assert [s.lost for s in seen] == [0, 0, 0, 0, 2, 0, 0, 0, 0], "4 and 5 never came; a smaller number is a restart"
    assert [s.sequence for s in seen] == [1, 2, 3, 4, 7, 8, 9, 10, 11]


def test_equal_pictures_of_a_simulation_at_rest_are_normal():
    watch = FrozenWatch(identical=0)
    assert not any(watch.look(frame(None, 5, i)).repeated for i in range(10))
