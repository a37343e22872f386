"""Stages of an experiment: commands of `safe-policy` in processes of their own, each done once.

A stage's result is written when it has succeeded; an experiment that was interrupted goes on with the first stage
that has none. The commands themselves resume where they can.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safe_policy_core.errors import UserError

log = logging.getLogger(__name__)


class StageFailed(UserError):
    """A command of an experiment failed; the message has its last words."""


@dataclass(frozen=True)
class Stage:
    """path: the result, a JSON file beside which the command's messages go. arguments: of `safe-policy`.

    resume: arguments added when an earlier attempt at this stage was interrupted.
    """

    path: Path
    arguments: tuple[str, ...]
    resume: tuple[str, ...] = ()


def run_stage(stage: Stage, threads: int) -> dict[str, Any]:
    """The stage's result: that on disk, or the command's. Raises `StageFailed`.

    A result on disk of another command is an error: the experiment's settings have changed, and mixed results
    would be neither one's.
    """
    if stage.path.exists():
        saved = json.loads(stage.path.read_text())
        if tuple(saved["arguments"]) != stage.arguments:
            raise StageFailed(f"{stage.path}: made by `safe-policy {' '.join(saved['arguments'])}`, now it would be "
                              f"`safe-policy {' '.join(stage.arguments)}`; name another --out, or remove the file")
        return saved["result"]
    stage.path.parent.mkdir(parents=True, exist_ok=True)
    begun = stage.path.with_suffix(".begun")
    more = stage.resume if begun.exists() else ()
    begun.touch()
    started = time.monotonic()
    with stage.path.with_suffix(".log").open("a") as messages:
        done = subprocess.run([sys.executable, "-m", "safe_policy_core.cli", *stage.arguments, *more, "--json"],
                              stdout=subprocess.PIPE, stderr=messages, text=True, check=False,
                              env=os.environ | {"OMP_NUM_THREADS": str(threads)})
    result = last_object(done.stdout)
    if done.returncode or result is None or "error" in result:
        raise StageFailed(f"{stage.path.stem}: `safe-policy {' '.join([*stage.arguments, *more])}` ended with "
                          f"{done.returncode}: {(result or {}).get('error', 'no result')}; see {messages.name}")
    content = {"arguments": stage.arguments, "seconds": round(time.monotonic() - started, 1), "result": result}
    partial = stage.path.with_suffix(".partial")
    partial.write_text(json.dumps(content))
    partial.replace(stage.path)
    begun.unlink()
    log.info("%s: %.0f s", stage.path, content["seconds"])
    return result


def last_object(text: str) -> dict[str, Any] | None:
    """The JSON object in the last line that is one."""
    for line in reversed(text.splitlines()):
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            return found
    return None


def settings(values: Sequence[str]) -> tuple[str, ...]:
    """`--set name=value ...` of `safe-policy pretrain`."""
    return ("--set", *values) if values else ()
