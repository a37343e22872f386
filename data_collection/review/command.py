"""`safe-policy review`."""

from __future__ import annotations

import getpass
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from data_collection.review.dataset import ReviewDataset
from data_collection.review.selection import verdict_counts
from safe_policy_core.errors import ConfigurationError


@dataclass
class Review:
    """Look at recorded episodes on a local page, correct their labels, accept or reject them.

    Labels go to labels.jsonl beside the episodes, which stay as they are; training applies them.
    """

    directory: Annotated[Path, tyro.conf.Positional]
    """Folder of training files (*.h5)."""

    who: str = field(default_factory=getpass.getuser)
    """Name that labels are signed with."""

    port: int = 8766
    """Of the page on 127.0.0.1; 0 for any that is free."""

    seconds: float = 0.0
    """How long to serve [s]; 0 until Ctrl-C."""

    def run(self) -> dict[str, Any]:
        """Returns how many episodes are accepted, rejected and open, and what was wrong with files."""
        if not self.who.strip():
            raise ConfigurationError("who: expected a name to sign labels with, got an empty one")
        dataset = ReviewDataset(self.directory, self.who)
        stop = threading.Event()
        # Files are read while the page's libraries load.
        reader = threading.Thread(target=dataset.load, args=(stop,), name="reader", daemon=True)
        reader.start()
        from data_collection.review.server import serve

        url = serve(dataset, self.port, self.seconds)
        stop.set()
        reader.join()
        return {"url": url, "episodes": len(dataset.entries), "changes": dataset.changes,
                "verdicts": verdict_counts(dataset.rows()),
                "problems": [*dataset.problems, *(entry.problem for entry in dataset.entries if entry.problem)]}
