"""Records every episode as one MCAP file and makes its training file (HDF5)."""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

import rclpy.clock
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message
from safe_policy_interfaces.msg import EpisodeSaved, EpisodeState
from std_srvs.srv import Trigger

from data_collection.conversion import IMAGE_TOPIC, STEP_TOPIC, convert_file
from data_collection.recording.session import Recorded, RecordingSession, Sample
from safe_policy_core.errors import UserError
from safe_policy_core.scheduling import RECORDING_PRIORITY, thread_steps_back
from safe_policy_ros import health, qos
from safe_policy_ros.hand_taken import TakenByHand, subscribe, take
from safe_policy_ros.heartbeat import Heartbeat
from safe_policy_ros.node_process import run_node
from safe_policy_ros.parameters import declare

NAME = "recorder"
STATE_TOPIC = "/episode/state"

TOPICS: dict[str, tuple[str, QoSProfile]] = {
    IMAGE_TOPIC: ("sensor_msgs/msg/Image", qos.SENSOR),
    "/camera/color/camera_info": ("sensor_msgs/msg/CameraInfo", qos.SENSOR),
    "/camera/frame_status": ("safe_policy_interfaces/msg/FrameStatus", qos.SENSOR),
    "/diagnostics": ("diagnostic_msgs/msg/DiagnosticArray", qos.STATUS),
    "/franka/current_pose": ("geometry_msgs/msg/PoseStamped", qos.SENSOR),
    "/franka/joint_states": ("sensor_msgs/msg/JointState", qos.SENSOR),
    "/franka/external_wrench": ("geometry_msgs/msg/WrenchStamped", qos.SENSOR),
    "/franka/target_pose": ("geometry_msgs/msg/PoseStamped", qos.COMMAND),
    "/policy/delta_twist_cmds": ("geometry_msgs/msg/TwistStamped", qos.COMMAND),
    "/teleop/delta_twist_cmds": ("geometry_msgs/msg/TwistStamped", qos.COMMAND),
    "/teleop/joy": ("sensor_msgs/msg/Joy", qos.STATUS),
    "/labels": ("safe_policy_interfaces/msg/LabelEvent", qos.LABELS),
    "/safety_gate/status": ("safe_policy_interfaces/msg/GateStatus", qos.STATUS),
    STEP_TOPIC: ("safe_policy_interfaces/msg/Step", qos.STEPS),
    STATE_TOPIC: ("safe_policy_interfaces/msg/EpisodeState", qos.EPISODE_STATE),
}

POLL_PERIOD = 0.05
"""[s] Every look costs: at 0.02 s the node took 15% of a core instead of 12% (640x480 at 30 Hz)."""
QUEUE_DEPTH = 100
"""Messages that may wait on a topic: a second of the fastest, should the disk or a conversion hold the recorder up."""


class RecorderNode(Node):
    """Opens a recording when /episode/state says RUNNING and closes it after ENDED, a signal, or the policy's death."""

    def __init__(self) -> None:
        super().__init__(NAME)
        directory = declare(self, "directory", "runs/recordings", "where episodes go that name no folder of their own")
        self._session = RecordingSession(
            Path(directory),
            preroll=declare(self, "preroll", 1.0, "how much of what came before an episode is recorded [s]", 0.0, 10.0),
            tail=declare(self, "tail", 0.2, "how long to wait for late messages after an episode [s]", 0.0, 0.3),
            own_topics={STEP_TOPIC})
        self._convert = declare(self, "convert", True, "make the HDF5 file beside each recording")
        self._saved = self.create_publisher(EpisodeSaved, "/episode/saved", qos.EPISODE_SAVED)
        self._health = self.create_publisher(DiagnosticArray, health.TOPIC, qos.STATUS)
        self._stop = self.create_client(Trigger, "/safety_gate/stop")
        self._stopped: str | None = None
        self._worker = ThreadPoolExecutor(1, "convert", initializer=thread_steps_back)
        self._closed = False
        # raw: messages go into the file as the bytes that came; only the episode's state is read.
        group = TakenByHand()
        self._taps = [(topic, kind, subscribe(self, message_type(kind), topic, profile, group, QUEUE_DEPTH, raw=True))
                      for topic, (kind, profile) in TOPICS.items()]
        # Steady clocks: a step of the system's time must not stall the recording.
        steady = rclpy.clock.Clock(clock_type=rclpy.clock.ClockType.STEADY_TIME)
        self.create_timer(POLL_PERIOD, self._poll, clock=steady)
        self.create_timer(0.5, self._watch_policy, clock=steady)
        self._recover(None)
        self._heartbeat = Heartbeat(self, NAME)
        self.get_logger().info(f"ready, recordings go to {Path(directory).absolute()}")

    def _poll(self) -> None:
        """Takes what has come on all topics, in the order in which it was published."""
        self._heartbeat.progress()
        samples = []
        for topic, kind, subscription in self._taps:
            for data, info in take(subscription, raw=True):
                publisher = (info.get("publisher_gid") or {}).get("data")
                samples.append(Sample(topic, kind, data, info["received_timestamp"], info["source_timestamp"],
                                      info["publication_sequence_number"] or 0, publisher))
        for sample in sorted(samples, key=lambda sample: sample.publish_time_ns):
            if sample.topic == STATE_TOPIC:
                self._on_state(sample)
            else:
                self._session.add(sample)
        if self._session.failure and self._session.episode_id != self._stopped:
            self._stop_arm(self._session.failure)
        if self._session.due(time.monotonic()):
            self._finish()

    def _stop_arm(self, why: str) -> None:
        """An episode that cannot be recorded does not go on: its steps and costs would be lost."""
        self._stopped = self._session.episode_id
        self._health.publish(health.health_message(NAME, health.ERROR, why, {}, self.get_clock().now().nanoseconds))
        if self._stop.service_is_ready():
            self._stop.call_async(Trigger.Request())

    def _on_state(self, sample: Sample) -> None:
        state: EpisodeState = deserialize_message(sample.data, EpisodeState)
        running = state.phase == EpisodeState.RUNNING
        if running and state.episode_id != self._session.episode_id:
            self._finish("the next episode began before this one ended")
            self._begin(state, sample.publish_time_ns)
        self._session.add(sample)
        if not running:
            self._session.end(time.monotonic())

    def _begin(self, state: EpisodeState, announced_ns: int) -> None:
        self._recover(state.directory or None)
        try:
            metadata = json.loads(state.metadata_json or "{}")
        except ValueError as error:
            self.get_logger().error(f"episode {state.episode_id}: metadata_json is not JSON ({error})")
            metadata = {}
        if metadata.get("record") is False:
            return  # RunEpisode without a directory asks for no recording
        described = {"task": state.task, "seed": state.seed, "operator": state.operator_name}
        self._session.begin(state.episode_id, described | metadata, state.directory or None, announced_ns)
        self.get_logger().info(f"recording {state.episode_id}")

    def _watch_policy(self) -> None:
        """A policy that died says nothing: without this its last episode would stay open."""
        if self._session.episode_id is not None and not self.count_publishers(STATE_TOPIC):
            self._finish("the policy node is gone")

    def _finish(self, why: str = "") -> None:
        recorded = self._session.finish()
        if recorded is None:
            return
        if why:
            self.get_logger().warning(f"{recorded.episode_id} cut short: {why}")
        self._submit(recorded, "")

    def _recover(self, directory: str | None) -> None:
        for path in self._session.recover(directory):
            self._submit(Recorded(path.stem, path, 0), "recovered after a crash")

    def _submit(self, recorded: Recorded, note: str) -> None:
        def report(job: Future[None]) -> None:
            if (error := job.exception()) is not None:
                self.get_logger().error(f"{recorded.episode_id}: {error!r}")

        self._worker.submit(self._save, recorded, note).add_done_callback(report)

    def _save(self, recorded: Recorded, note: str) -> None:
        """Converts and tells; runs in the worker's thread, so that messages are taken meanwhile."""
        message = EpisodeSaved(episode_id=recorded.episode_id, mcap_path=str(recorded.path or ""),
                               dropped=recorded.dropped, success=recorded.path is not None and not recorded.error,
                               message=recorded.error or note)
        if recorded.path is not None and self._convert:
            try:
                path, episode = convert_file(recorded.path)
                message.hdf5_path, message.steps = str(path), len(episode)
            except (UserError, OSError) as error:
                message.success, message.message = False, str(error)
        if message.success:
            self.get_logger().info(f"saved {message.episode_id}: {message.steps} steps, {message.dropped} messages "
                                   "dropped")
        else:
            self.get_logger().error(f"{message.episode_id} not saved as it should be: {message.message}")
        self._saved.publish(message)

    def close(self) -> None:
        """Completes what is being recorded. Called while ROS still works."""
        if self._closed:
            return
        self._closed = True
        self._poll()
        self._finish("the recorder was stopped")
        self._heartbeat.close()
        self._worker.shutdown(wait=True)
        # The receipt dies with its writer unless the readers have it.
        self._saved.wait_for_all_acked(Duration(seconds=0.5))


def message_type(name: str) -> type:
    """The class of "package/msg/Name"."""
    package, _, message = name.split("/")
    return getattr(import_module(f"{package}.msg"), message)


def main() -> None:
    sys.exit(run_node(RecorderNode, NAME, priority=RECORDING_PRIORITY))


if __name__ == "__main__":
    main()
