"""`safe-policy watch`."""

from __future__ import annotations

import importlib
import itertools
import logging
import signal
import time
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from data_collection.recording import message_definition
from data_collection.watch.recordings import WatchedRecording, files_of
from data_collection.watch.view import View
from safe_policy_core.errors import ConfigurationError

log = logging.getLogger(__name__)

POLL_PERIOD = 0.2
"""[s] Between two looks at whether the viewer's window is still there."""


@dataclass
class Watch:
    """Watches the running graph or recordings: camera, arm, target, limits, actions, estimates, gate, episode clock."""

    input: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Recordings (*.mcap), or folders of them. Without any, the running ROS graph is watched until Ctrl-C."""

    viewer: Literal["rerun", "foxglove"] = "rerun"
    """rerun: a window, or a page where there is no screen. foxglove: a websocket for the Foxglove app."""

    save: Path | None = None
    """Recordings: no viewer; write files for one into this folder (NAME.rrd for rerun, NAME.mcap for foxglove)."""

    port: int | None = None
    """Of Rerun's page (9090) or the websocket (8765), on this machine only."""

    open_browser: bool = False
    """Rerun without a screen of its own: open the page in the browser."""

    def run(self) -> dict[str, Any]:
        """Watches until Ctrl-C, the end of the graph or of the window; with --save until all files are written."""
        if self.save is not None:
            if not self.input:
                raise ConfigurationError("save: name recordings to write; the running graph is recorded by itself")
            return self._save(self.save)
        # A viewer's program must not outlive this one, whichever way it is told to end.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
        watch = self._in_rerun if self.viewer == "rerun" else self._in_foxglove
        try:
            return watch()
        except KeyboardInterrupt:
            return {"viewer": self.viewer, "ended": "by a signal"}

    def _save(self, folder: Path) -> dict[str, Any]:
        suffix = {"rerun": ".rrd", "foxglove": ".mcap"}[self.viewer]
        recordings = [WatchedRecording(path) for path in files_of(self.input)]
        names = [recording.path.stem for recording in recordings]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ConfigurationError(f"save: two recordings are named {min(twice)}; write them one by one")
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for recording in recordings:
            target = folder / (recording.path.stem + suffix)
            if target.exists():
                raise ConfigurationError(f"save: {target} exists already; nothing is overwritten")
            view = self._view(recording)
            view.save(target)
            recording.show_in(view)
            view.close()
            written.append(str(target))
        return {"viewer": self.viewer, "files": written}

    def _in_rerun(self) -> dict[str, Any]:
        from data_collection.watch.rerun_view import RerunView
        from data_collection.watch.rerun_viewer import RerunViewer

        recordings = [WatchedRecording(path) for path in files_of(self.input)] if self.input else []
        viewer = RerunViewer(9090 if self.port is None else self.port)
        try:
            if viewer.url:
                log.info("open %s", viewer.url)
                if self.open_browser:
                    webbrowser.open(viewer.url)
            for recording in recordings:
                view = self._view(recording)
                view.connect(viewer.address)
                recording.show_in(view)
                view.close()
            if not recordings:
                live = RerunView("live")
                live.connect(viewer.address)
                return self._graph(live, lambda: viewer.running)
            log.info("%d recordings shown; Ctrl-C ends", len(recordings))
            while viewer.running:
                time.sleep(POLL_PERIOD)
        finally:
            viewer.close()
        return {"viewer": "rerun", "recordings": len(recordings), "ended": "with the viewer"}

    def _in_foxglove(self) -> dict[str, Any]:
        from data_collection.watch.foxglove_layout import LAYOUT_FILE
        from data_collection.watch.foxglove_view import PORT, FoxgloveView

        recordings = [WatchedRecording(path) for path in files_of(self.input)]
        view = FoxgloveView(_definitions(recordings))
        try:
            address = view.serve(PORT if self.port is None else self.port)
            log.info("Foxglove: Open connection > Foxglove WebSocket > %s; import the layout %s", address, LAYOUT_FILE)
            if not recordings:
                return self._graph(view, lambda: True)
            for recording in itertools.cycle(recordings):
                log.info("playing %s; Ctrl-C ends", recording.path.name)
                play(recording, view, time.monotonic, time.sleep)
        finally:
            view.close()
        return {}

    def _view(self, recording: WatchedRecording) -> Any:
        if self.viewer == "foxglove":
            from data_collection.watch.foxglove_view import FoxgloveView

            return FoxgloveView(recording.definition)
        from data_collection.watch.rerun_view import RerunView

        return RerunView(recording.path.stem, recording.definition)

    def _graph(self, view: View, wanted: Callable[[], bool]) -> dict[str, Any]:
        # By name: this package does not depend on the ROS packages, which only exist where the workspace is built.
        watch_graph = importlib.import_module("safe_policy_ros.watch_node").watch_graph
        try:
            code = watch_graph(view, wanted)
        finally:
            view.close()
        return {"viewer": self.viewer, "ended": "with the graph", "_exit_code": code}


def play(recording: WatchedRecording, view: View, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
    """Shows a recording at the speed at which it was made. clock [s] is a steady one."""
    began, first = clock(), None
    for time_ns, topic, kind, data in recording.messages():
        first = time_ns if first is None else first
        if (wait := began + (time_ns - first) * 1e-9 - clock()) > 0:
            sleep(wait)
        view.show(topic, kind, data, time_ns)


def _definitions(recordings: list[WatchedRecording]) -> Callable[[str], str]:
    """Message types of several files, the first one's where they differ; of the environment without files."""
    def definition(type_name: str) -> str:
        for recording in recordings:
            if recording.defines(type_name):
                return recording.definition(type_name)
        return message_definition(type_name)

    return definition
