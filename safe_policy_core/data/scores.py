"""What a discriminator thinks of recorded episodes: `scores.jsonl` beside them, one JSON object a line.

`safe-policy review` sorts by it, worst first, and draws the attention over time. A later line about an
episode replaces an earlier one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from safe_policy_core.data.json_lines import append_lines, is_number, read_lines
from safe_policy_core.errors import DatasetError

SCORES_FILE = "scores.jsonl"


@dataclass(frozen=True)
class Score:
    """recording: `recording_id` of the episode. name: its file, for people. method: who judged, e.g. "dspo".

    score: probability in [0, 1] that the episode is safe; the lowest are looked at first.
    attention: one number >= 0 a step, how much each step mattered (DSPO's preference attention), or empty.
    """

    recording: str
    name: str
    method: str
    score: float
    attention: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not is_number(self.score) or not 0 <= self.score <= 1:
            raise DatasetError(f"score: expected a probability in [0, 1], got {self.score!r}")
        if not all(is_number(weight) and weight >= 0 for weight in self.attention):
            raise DatasetError("attention: expected finite numbers >= 0, one a step")
        for name in ("recording", "name", "method"):
            if not isinstance(getattr(self, name), str):
                raise DatasetError(f"{name}: expected text, got {getattr(self, name)!r}")


def write_scores(folder: Path | str, scores: Iterable[Score]) -> None:
    """Appends `scores` of episodes in `folder`; they are on disk when this returns."""
    append_lines(Path(folder) / SCORES_FILE, [asdict(score) for score in scores])


def read_scores(folder: Path | str) -> dict[str, Score]:
    """The newest score by recording. Raises `DatasetError` naming the file and the field."""
    path = Path(folder) / SCORES_FILE
    found: dict[str, Score] = {}
    for row in read_lines(path)[0]:
        try:
            score = Score(**row | {"attention": tuple(row.get("attention", ()))})
        except (DatasetError, TypeError) as error:
            raise DatasetError(f"{path}: {error}") from error
        found[score.recording] = score
    return found
