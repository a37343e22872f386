"""Speed figures of recording and conversion for `make bench`."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from websockets.sync.client import connect

from data_collection.conversion import IMAGE_TOPIC, STEP_TOPIC, convert_file
from data_collection.dataset.check import check_files
from data_collection.recording import McapEpisodeWriter
from data_collection.recording.encoding import encode_message, stamp
from safe_policy_core.benchmark import example_episode, per_second
from safe_policy_core.data.episode_file import read_pictures, write_episode
from safe_policy_core.data.episodes import EpisodeStore
from safe_policy_core.errors import DatasetError

STEPS = 80
CONTROL_PERIOD_NS = 100_000_000
FRAMES_PER_STEP = 3
STATES_PER_STEP = 10
CHECKED = 200
"""Episodes that `dataset check`, reading and the review page are measured on."""
SHOWN = {"the list": "document.querySelector('.entry .chip')",
         f"all {CHECKED} points": f"document.querySelectorAll('.scatter circle').length === {CHECKED}",
         "thumbnails and first frame": "[...document.querySelectorAll('img.thumbnail')].every((i) => i.naturalWidth) "
                                       "&& document.querySelector('.frame').dataset.frame"}
"""What a person waits for on the review page, as JavaScript."""
START_NS = 1_700_000_000_000_000_000

_ACTION = {"name": "action", "shape": [6], "dtype": "float32", "low": -1.0, "high": 1.0, "unit": "1"}
_POSE = {"name": "observation/pose", "shape": [6], "dtype": "float32", "low": None, "high": None, "unit": "m, rad"}


def example_metadata(size: tuple[int, int] = (64, 64)) -> dict[str, Any]:
    """What the recorder writes about an episode whose policy saw pictures of `size`."""
    image = {"name": "observation/image", "shape": [*size, 3], "dtype": "uint8", "low": 0, "high": 255, "unit": "1"}
    return {"episode_id": "example", "task": "original", "seed": 1, "operator": "benchmark",
            "specs": {"observation": {"image": image, "pose": _POSE}, "action": _ACTION,
                      "scales": {"max_translation_step": 0.015, "max_rotation_step": 0.05}}}


def record_example(path: Path, steps: int = STEPS, height: int = 64, width: int = 64, seed: int = 0,
                   size: tuple[int, int] = (64, 64)) -> int:
    """A recording as the graph makes it: steps at 10 Hz, pictures at 30 Hz, arm poses at 100 Hz. Returns messages."""
    writer = McapEpisodeWriter(path, example_metadata(size))
    messages = 0
    for topic, kind, data, time_ns, sequence in example_messages(steps, height, width, seed):
        writer.write(topic, kind, data, time_ns, sequence=sequence)
        messages += 1
    writer.close()
    return messages


def example_messages(steps: int, height: int, width: int, seed: int) -> list[tuple[str, str, bytes, int, int]]:
    """(topic, type, CDR data, time [ns], sequence number) of an episode of `steps` steps, in the order of time."""
    rng = np.random.default_rng(seed)
    texture = rng.integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    rows: list[tuple[str, str, bytes, int, int]] = []
    for frame in range(steps * FRAMES_PER_STEP + 1):
        time_ns = START_NS + frame * CONTROL_PERIOD_NS // FRAMES_PER_STEP
        # Blocks that move stand for a scene: random noise would not compress, a plain picture too well.
        picture = np.roll(texture, frame, axis=1)[:height, :width]
        rows.append((IMAGE_TOPIC, "sensor_msgs/msg/Image", encode_message("sensor_msgs/msg/Image", {
            "header": {"stamp": stamp(time_ns)}, "height": height, "width": width, "encoding": "rgb8",
            "step": width * 3, "data": picture.tobytes()}), time_ns, frame + 1))
    for index in range(steps * STATES_PER_STEP):
        time_ns = START_NS + index * CONTROL_PERIOD_NS // STATES_PER_STEP
        rows.append(("/franka/current_pose", "geometry_msgs/msg/PoseStamped", encode_message(
            "geometry_msgs/msg/PoseStamped", {"header": {"stamp": stamp(time_ns), "frame_id": "fr3_link0"}}),
            time_ns, index + 1))
    poses = rng.normal(size=(steps + 1, 6)).astype(np.float32)
    for index in range(steps):
        begin = START_NS + index * CONTROL_PERIOD_NS
        actions = {name: rng.uniform(-1, 1, 6).astype(np.float32).tolist()
                   for name in ("requested_action", "executed_action", "human_action")}
        rows.append((STEP_TOPIC, "safe_policy_interfaces/msg/Step", encode_message("safe_policy_interfaces/msg/Step", {
            "header": {"stamp": stamp(begin)}, "index": index, "pose": poses[index].tolist(), **actions,
            "intervention": bool(index % 2), "filter_reason": "workspace" if index % 3 == 0 else "",
            "reward": float(index == steps - 1), "cost": float(index % 5 == 0), "terminated": index == steps - 1,
            "next_stamp": stamp(begin + CONTROL_PERIOD_NS), "next_pose": poses[index + 1].tolist()}),
            begin + CONTROL_PERIOD_NS, index + 1))
    return sorted(rows, key=lambda row: row[3])


def rows() -> list[dict[str, Any]]:
    """Recorder throughput [messages/s, MB/s] and conversion speed [steps/s]; the graph makes about 600 messages/s."""
    result = []
    with tempfile.TemporaryDirectory() as folder:
        for name, height, width in (("64x64", 64, 64), ("640x480", 480, 640)):
            messages = example_messages(STEPS if height == 64 else 20, height, width, seed=0)
            path = Path(folder) / f"{name}.mcap"
            begin = time.perf_counter()
            writer = McapEpisodeWriter(path, example_metadata())
            for topic, kind, data, time_ns, sequence in messages:
                writer.write(topic, kind, data, time_ns, sequence=sequence)
            writer.close()
            seconds = time.perf_counter() - begin
            size = sum(len(data) for _, _, data, _, _ in messages)
            result.append(_row(f"recorder, episode with {name} pictures", len(messages) / seconds, "messages/s"))
            result.append(_row(f"recorder, episode with {name} pictures, data", size / seconds / 1e6, "MB/s"))
            begin = time.perf_counter()
            _, episode = convert_file(path)
            seconds = time.perf_counter() - begin
            result.append(_row(f"conversion MCAP to HDF5, {name} pictures", len(episode) / seconds, "steps/s"))
            result.append(_row(f"conversion MCAP to HDF5, {name} pictures, against real time",
                               len(episode) * CONTROL_PERIOD_NS / 1e9 / seconds, "times"))
        result += _dataset_rows(Path(folder) / "set")
    return result


def _dataset_rows(folder: Path) -> list[dict[str, Any]]:
    """`dataset check`, and what training reads from files that the disk cache holds, on episodes of full length."""
    files = [folder / f"{seed:03d}.h5" for seed in range(CHECKED)]
    for seed, path in enumerate(files):
        write_episode(path, example_episode(seed, STEPS))
    workers = os.cpu_count() or 1
    begin = time.perf_counter()
    problems = [item.problem for item in check_files(files, workers) if item.problem]
    seconds = time.perf_counter() - begin
    if problems:
        raise DatasetError(f"benchmark: {problems[0]}")
    frames = CHECKED * (STEPS + 1)
    pictures = per_second(lambda: [read_pictures(path) for path in files])
    store = per_second(lambda: EpisodeStore(folder).rows)
    return [_row(f"dataset check, episodes of {STEPS} steps, {workers} processes", len(files) / seconds, "episodes/s"),
            _row("64x64 pictures from HDF5 in the disk cache", frames * pictures, "frames/s"),
            _row("episode store: load, every field checked, 64x64 pictures", frames * store, "frames/s"),
            *_review_rows(folder)]


def _review_rows(folder: Path) -> list[dict[str, Any]]:
    """From the command to what a person sees of the page in an open Chromium; where there is none, to what is sent."""
    return [_row(f"review of {CHECKED} episodes, {occasion}: command to {what}", seconds, "s")
            for occasion in ("first time", "again") for what, seconds in _review_times(folder).items()]


def _review_times(folder: Path) -> dict[str, float]:
    """[s] from the command until something was there."""
    command = [sys.executable, "-m", "safe_policy_core.cli", "review", str(folder), "--port", "0", "--who", "benchmark"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder.parent / "cache")}
    with _browser() as browser:
        begin = time.perf_counter()
        with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment
                              ) as process:
            try:
                assert process.stderr is not None
                url = next(found.group() for line in process.stderr if (found := re.search(r"http://[\d.:]+/", line)))
                seen = _sent(url) if browser is None else _shown(browser, url)
                return {what: when - begin for what, when in seen}
            finally:
                process.send_signal(signal.SIGINT)


def _shown(browser: Any, url: str) -> Iterator[tuple[str, float]]:
    """What is on the screen, and when."""
    browser.goto(url, wait_until="commit")
    yield "the page", time.perf_counter()
    for what, condition in SHOWN.items():
        browser.wait_for_function(condition)
        yield f"{what} on the screen", time.perf_counter()


def _sent(url: str) -> Iterator[tuple[str, float]]:
    """What the server sends, and when."""
    with urllib.request.urlopen(url) as answer:
        answer.read()
    yield "the page", time.perf_counter()
    with connect(f"{url.replace('http', 'ws')}live") as window:
        rows: list[dict[str, Any]] = [{}]
        while not all(row.get("recording") for row in rows):
            rows = json.loads(json.loads(window.recv()).get("every", "[{}]"))
        yield "every episode in the list", time.perf_counter()


@contextlib.contextmanager
def _browser() -> Iterator[Any]:
    """A page of an open Chromium; None where there is none."""
    program = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if program is None or importlib.util.find_spec("playwright") is None:
        yield None
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 850})
        page.goto("about:blank")
        yield page
        browser.close()


def _row(name: str, value: float, unit: str) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": unit, "peer": None, "peer_value": None, "ratio": None}
