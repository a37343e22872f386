"""One MCAP file per episode, with the ROS messages as they came."""

from data_collection.recording.definitions import message_definition
from data_collection.recording.recovery import Recovery, recover, recover_all, unfinished
from data_collection.recording.writer import McapEpisodeWriter

__all__ = ["McapEpisodeWriter", "Recovery", "message_definition", "recover", "recover_all", "unfinished"]
