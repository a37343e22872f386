"""The camera node with a recorded RealSense, another node's topic, and the simulated scene, as processes over DDS."""

import contextlib
import re
import time

import numpy as np
import pytest

pytest.importorskip("safe_policy_interfaces", reason="the ROS workspace is not built; run make setup")

import rclpy  # before pyrealsense2: in the other order the process dies when it ends
from rclpy.context import Context
from sensor_msgs.msg import CameraInfo, Image

import pyrealsense2 as rs  # isort: skip

from safe_policy_ros import qos
from safe_policy_ros.messages import image_from_msg, image_to_msg, stamp_to_ns
from safe_policy_ros.spinner import Spinner

from tests.ros.graph import ros_graph, wait_for

pytestmark = pytest.mark.ros

WIDTH, HEIGHT, FPS, FRAMES = 640, 480, 30, 20
FOCAL = (600.0, 601.0)


def picture(number):
    """(480, 640, 3) that names its number in every pixel of the first channel, and is RGB by its colours."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[..., 0] = 10 * number
    image[:, :WIDTH // 2, 2] = 255
    return image


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """A .db3 as a D435 would leave it, made with librealsense's own recorder from a software device."""
    path = str(tmp_path_factory.mktemp("realsense") / "camera.db3")
    device = rs.software_device()
    sensor = device.add_sensor("RGB Camera")
    stream = rs.video_stream()
    stream.type, stream.index, stream.uid, stream.fmt, stream.bpp = rs.stream.color, 0, 1, rs.format.rgb8, 3
    stream.width, stream.height, stream.fps = WIDTH, HEIGHT, FPS
    intrinsics = rs.intrinsics()
    intrinsics.width, intrinsics.height, intrinsics.ppx, intrinsics.ppy = WIDTH, HEIGHT, WIDTH / 2, HEIGHT / 2
    intrinsics.fx, intrinsics.fy = FOCAL
    intrinsics.model, intrinsics.coeffs = rs.distortion.brown_conrady, [0.1, 0.01, 0.0, 0.0, 0.0]
    stream.intrinsics = intrinsics
    profile = sensor.add_video_stream(stream).as_video_stream_profile()
    recorder = rs.recorder(path, device)
    recorded = recorder.query_sensors()[0]
    queue = rs.frame_queue(FRAMES)
    recorded.open(profile)
    recorded.start(queue)
    for number in range(FRAMES):
        frame = rs.software_video_frame()
        frame.pixels, frame.stride, frame.bpp, frame.profile = picture(number), WIDTH * 3, 3, profile
        frame.timestamp, frame.frame_number = number * 1000 / FPS, number + 1
        frame.domain = rs.timestamp_domain.hardware_clock
        sensor.on_video_frame(frame)
        time.sleep(0.01)
    recorded.stop()
    recorded.close()
    del recorder, recorded
    return path


class Viewer:
    """Listens to the camera topics, with a deeper queue than the policy so that nothing seen is lost here."""

    def __init__(self, domain):
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node("viewer", context=self.context)
        self.images, self.infos = [], []
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
