"""Tests of the running graph may be tried again, and say so.

The graph runs in real time: eight processes and the simulated arm, which need one and a half of two cores, and 1.8 with
a test that plays the operator. On a virtual machine whose cores are shared with others these are at times not there, a
step comes late, and a bar of milliseconds is missed. What fails three times in a row is taken for broken. Each attempt
has a graph of its own (a fault that latched would fail the next one too), and waits for a machine that is there. On a
quiet machine none of `make test` needed a second one.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol

ATTEMPTS = 3
STOLEN = 0.03
"""Share of the processors' time that others may take from this machine while an attempt begins."""
PATIENCE = 60.0
"""[s] for which an attempt waits for it."""


def processor_times() -> tuple[int, int]:
    """(stolen, all) of all cores since the machine started, in ticks."""
    times = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return times[7], sum(times)


def wait_for_the_machine() -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        stolen, total = processor_times()
        time.sleep(3.0)
        now_stolen, now_total = processor_times()
        if now_stolen - stolen <= STOLEN * (now_total - total):
            break


def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    if item.get_closest_marker("ros") is None:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for attempt in range(1, ATTEMPTS + 1):
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        failed = [report for report in reports if report.failed]
        if attempt == ATTEMPTS or not failed:
            break
        reason = failed[0].longreprtext.strip().splitlines()[-1]
        crash = getattr(failed[0].longrepr, "reprcrash", None)
        if crash is not None:
            reason += f": {crash.message.splitlines()[0]}"
        sys.stderr.write(f"\n{item.nodeid}: attempt {attempt} failed ({reason}), runs again\n")
        item.session._setupstate.teardown_exact(None)
        wait_for_the_machine()
        item._initrequest()
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
