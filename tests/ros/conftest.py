"""A test whose machine stood still beneath it runs again; one that failed by itself does not."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol

from tests.ros.stalls import stalled_between

ATTEMPTS = 3
_LOG = pytest.StashKey[Path]()


def _watch(config: pytest.Config) -> Path:
    """The log of a watch that lasts as long as the session."""
    if _LOG not in config.stash:
        number, name = tempfile.mkstemp(suffix="_stalls")
        watch = subprocess.Popen([sys.executable, "-m", "tests.ros.stalls"], stdout=number)
        os.close(number)
        log = Path(name)
        for clean_up in (log.unlink, watch.wait, watch.terminate):  # called in reverse order
            config.add_cleanup(clean_up)
        while watch.poll() is None and not log.stat().st_size:
            time.sleep(0.01)
        config.stash[_LOG] = log
    return config.stash[_LOG]


def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    if item.get_closest_marker("ros") is None:
        return None
    log = _watch(item.config)
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for attempt in range(1, ATTEMPTS + 1):
        began = time.monotonic()
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        if attempt == ATTEMPTS or not any(report.failed for report in reports) \
                or not stalled_between(log, began, time.monotonic()):
            break
        sys.stderr.write(f"\n{item.nodeid}: failed while the machine stood still, runs again\n")
        item._initrequest()
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
