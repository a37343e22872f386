"""Episodes to review, and the review page's server as a person starts it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from safe_policy_core.data.episodes import Episode
from tests.core.point_env import image_episode


def pushed(steps: int = 12, begin: int = 4, end: int = 8, seed: int = 0) -> Episode:
    """A green box that is pushed to the right in the steps begin <= step < end, a grey arm before it now and then."""
    episode = image_episode(steps, seed)
    images = np.full((steps + 1, 32, 32, 3), 90, np.uint8)
    for row in range(steps + 1):
        left = 8 + 2 * int(np.clip(row - begin, 0, end - begin))
        images[row, 12:18, left:left + 6] = (20, 160, 20)
        if row % 2:
            images[row, 10:15, 5:12] = 120
    episode.observations["image"] = images
    episode.metadata["specs"]["observation"]["image"]["shape"] = [32, 32, 3]
    episode.cost[:] = 0
    return episode


@contextmanager
def serving(folder: Path, who: str = "anna") -> Iterator[str]:
    """The address of `safe-policy review FOLDER`, run as a process of its own until the end of the block."""
    # As a shell starts it in the background: with Ctrl-C ignored, unless it asks for it.
    process = subprocess.Popen(["bash", "-c", "trap '' INT; exec \"$@\"", "bash", sys.executable, "-m",
                                "safe_policy_core.cli", "review", str(folder), "--port", "0", "--who", who],
                               stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            if found := re.search(r"http://127\.0\.0\.1:\d+/", line):
                yield found.group()
                break
        else:
            raise AssertionError(said)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0, "Ctrl-C ends it in good order"
    finally:
        process.kill()
        process.wait()
