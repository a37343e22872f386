"""Which Chromium the browser tests use; `python -m tests.browser` says it, with exit code 1 when there is none."""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

NAMES = ("chromium", "google-chrome", "google-chrome-stable")


def chromium() -> str:
    """A browser of the system, else the one that `playwright install` fetched, else ""."""
    for name in NAMES:
        # Ubuntu's package is a snap, which may not read what tests write to /tmp.
        if (path := shutil.which(name)) and not Path(path).resolve().is_relative_to("/snap"):
            return path
    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).exists() else ""


if __name__ == "__main__":
    found = chromium()
    sys.stdout.write(f"{found}\n")
    sys.exit(not found)
