"""An episode for Foxglove: the ROS messages as they are, over a local websocket or in an MCAP file."""

from __future__ import annotations

from pathlib import Path

import foxglove
from foxglove import Channel, Context, Schema
from foxglove.channels import SceneUpdateChannel
from foxglove.messages import Color, CubePrimitive, Pose, Quaternion, SceneEntity, SceneUpdate, Timestamp, Vector3

from data_collection.recording import message_definition
from data_collection.watch import view
from data_collection.watch.decoding import Decoder, Definitions
from data_collection.watch.foxglove_layout import BASE_FRAME, LIMITS
from safe_policy_core.errors import ConfigurationError

HOST = "127.0.0.1"
PORT = 8765
_BOX_COLOR = Color(r=0.35, g=0.8, b=0.45, a=0.2)


class FoxgloveView:
    """Foxglove reads ROS messages itself; only the workspace box, which is in an episode's metadata, is added.

    definitions: of the message types.
    """

    def __init__(self, definitions: Definitions = message_definition) -> None:
        self._context = Context()
        self._definitions = definitions
        self._decode = Decoder(definitions)
        self._channels: dict[str, Channel] = {}
        self._limits = SceneUpdateChannel(LIMITS, context=self._context)
        self._server: foxglove.WebSocketServer | None = None
        self._file: foxglove.MCAPWriter | None = None

    def serve(self, port: int = PORT) -> str:
        """Opens a websocket for programs of this machine, at `port` (0: any free one). Returns its address.

        Raises `ConfigurationError` when somebody has the port.
        """
        try:
            self._server = foxglove.start_server(name="safe-policy", host=HOST, port=port, context=self._context)
        except (OSError, RuntimeError) as error:
            raise ConfigurationError(f"port: {port} cannot be opened on {HOST} ({error}); name another") from error
        return f"ws://{HOST}:{self._server.port}"

    def save(self, path: Path) -> None:
        """Everything from now on goes to an MCAP file. Raises `ConfigurationError` when there is one already."""
        try:
            self._file = foxglove.open_mcap(path, context=self._context)
        except OSError as error:
            raise ConfigurationError(f"save: {path} cannot be written ({error})") from error

    def show(self, topic: str, type_name: str, data: bytes, time_ns: int) -> None:
        """Raises `DatasetError` for an episode state that is none."""
        channel = self._channels.get(topic)
        if channel is None:
            schema = Schema(name=type_name, encoding="ros2msg", data=self._definitions(type_name).encode())
            channel = Channel(topic, schema=schema, message_encoding="cdr", context=self._context)
            self._channels[topic] = channel
        channel.log(data, log_time=time_ns)
        if topic == view.STATE:
            self._show_limits(type_name, data, time_ns)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        if self._server is not None:
            self._server.stop()

    def _show_limits(self, type_name: str, data: bytes, time_ns: int) -> None:
        box = view.limits_box(view.episode_metadata(self._decode(type_name, data).metadata_json))
        if box is None:
            return
        low, high = box
        middle, size = (low + high) / 2, high - low
        cube = CubePrimitive(pose=Pose(position=Vector3(x=middle[0], y=middle[1], z=middle[2]),
                                       orientation=Quaternion(x=0, y=0, z=0, w=1)),
                             size=Vector3(x=size[0], y=size[1], z=size[2]), color=_BOX_COLOR)
        stamp = Timestamp(sec=time_ns // 1_000_000_000, nsec=time_ns % 1_000_000_000)
        self._limits.log(SceneUpdate(entities=[SceneEntity(timestamp=stamp, frame_id=BASE_FRAME, id="limits",
                                                           cubes=[cube])]), log_time=time_ns)
