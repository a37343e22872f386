"""Tests of the running graph may be tried again, and say so.

The graph runs in real time: eight processes and the simulated arm, which need one and a half of two cores, and 1.8 with
a test that plays the operator. On a virtual machine whose cores are shared with others these are at times not there, a
step comes late, and a bar of milliseconds is missed. What fails twice in a row is taken for broken. On a quiet machine
none of `make test` needed it; those of `make takeover` did as soon as one other process computed.
"""

from __future__ import annotations

import sys

import pytest
from _pytest.runner import runtestprotocol

ATTEMPTS = 2


def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    if item.get_closest_marker("ros") is None:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for attempt in range(1, ATTEMPTS + 1):
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        failed = [report for report in reports if report.failed]
        if attempt == ATTEMPTS or not failed:
            break
        reason = str(failed[0].longrepr).strip().splitlines()[-1]
        sys.stderr.write(f"\n{item.nodeid}: attempt {attempt} failed ({reason}), runs again\n")
        item._initrequest()
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
