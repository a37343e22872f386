"""Episodes for training: files are decoded once into memory and sampled as sequences.

A batch follows Dreamer's arrival convention. Row t of a sequence holds observation t and what
was received on arriving there: `action` (the executed action that led to it), `reward`, `cost`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from safe_policy_core.data.episode_file import Episode, content_hash, read_episode, read_verified, write_episode
from safe_policy_core.data.labels import LABELS_FILE, LabelLayers
from safe_policy_core.errors import DatasetError
from safe_policy_core.interfaces import Specs

__all__ = ["Episode", "EpisodeStore", "EpisodeSummary", "content_hash", "episode_files", "read_episode",
           "write_episode"]

_EPISODE_SUFFIXES = (".h5", ".hdf5")


@dataclass(frozen=True)
class EpisodeSummary:
    """What selection needs to know of an episode.

    rows: T + 1. total_reward, total_cost: undiscounted sums. sha256: hash of the content.
    """

    rows: int
    total_reward: float
    total_cost: float
    success: bool
    sha256: str
    metadata: dict


class EpisodeStore:
    """Episodes kept flat in memory, sampled as windows of rows.

    `sources` are episode files or directories searched for them. Files are read at the first use,
    each once; images stay uint8. With `skip_broken` the readable files are used and the others
    are listed in `broken`; without it all of the broken ones are named in one `DatasetError`.
    The label layer beside the files is applied; episodes that a reviewer rejected are listed in `rejected`.
    """

    def __init__(self, sources: Path | str | Iterable[Path | str] = (), *, skip_broken: bool = False) -> None:
        self.broken: dict[Path, str] = {}
        self.rejected: list[Path] = []
        self._skip_broken = skip_broken
        self._pending: list[tuple[Path, float]] = [(path, 1.0) for path in episode_files(sources)]
        self._summaries: list[EpisodeSummary] = []
        self._starts: list[int] = []
        self._weights: list[float] = []
        self._specs: Specs | None = None
        self._columns: dict[str, np.ndarray] = {}
        self._rows = 0
        self._cumulative = np.zeros(0)

    def add(self, source: Episode | Path | str, weight: float = 1.0) -> None:
        """Adds one episode. Its rows start a sampled window `weight` times as often as others.

        A file comes with the labels beside it. Raises `DatasetError` when it is bad or rejected by a reviewer, or its
        specs differ from those in the store.
        """
        if not (np.isfinite(weight) and weight > 0):
            raise DatasetError(f"weight: expected a positive number, got {weight}")
        self._load_pending()
        if isinstance(source, Episode):
            name, episode = "episode", source
        else:
            name, labelled = str(source), LabelLayers().labelled(Path(source), read_episode(source))
            if labelled is None:
                raise DatasetError(f"{source}: a reviewer rejected it, see {LABELS_FILE} beside it")
            episode = labelled
        try:
            self._append(episode.validated(), weight)
        except DatasetError as error:
            raise DatasetError(f"{name}: {error}") from error

    def __len__(self) -> int:
        """Number of episodes."""
        self._load_pending()
        return len(self._summaries)

    @property
    def rows(self) -> int:
        """Number of observations over all episodes."""
        self._load_pending()
        return self._rows

    @property
    def specs(self) -> Specs:
        """Specs shared by every episode. Raises `DatasetError` when the store is empty."""
        self._load_pending()
        if self._specs is None:
            raise DatasetError("episode store: it holds no episodes; collect or convert some first")
        return self._specs

    @property
    def summaries(self) -> tuple[EpisodeSummary, ...]:
        """One entry per episode, in the order added."""
        self._load_pending()
        return tuple(self._summaries)

    def data_hash(self) -> str:
        """SHA-256 over the sorted hashes of the episodes: the same for the same set in any order."""
        return hashlib.sha256("\n".join(sorted(summary.sha256 for summary in self.summaries)).encode()).hexdigest()

    def select(self, keep: Callable[[EpisodeSummary], bool]) -> EpisodeStore:
        """A new store with the episodes for which `keep` is true, weights included."""
        chosen = EpisodeStore()
        for index, summary in enumerate(self.summaries):
            if keep(summary):
                chosen._specs = self._specs
                chosen._append_rows(self.rows_of(index), summary, self._weights[index])
        return chosen

    def sample(self, batch: int, length: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """`batch` windows of `length` rows: a dict of (batch, length, ...) arrays.

        Observations by name, and `action`, `policy_action`, `reward`, `cost`, `intervention`
        received on arriving at the row (zeros at an episode's first), `is_first`, `is_last`,
        `is_terminal` (arrived by termination), `next_action` (executed at the row; zeros where
        `has_next_action` is false, at an episode's last), `return_to_go` and `cost_to_go`
        (undiscounted sums still to come), `undisturbed` (no cost was received before the row), and `scene`, the
        first image of the row's episode, where there is an `image`. A window that reaches the end of an episode goes on
        with the next one, whose first row has `is_first`, as in DreamerV3; so every row is
        equally likely. Raises `DatasetError` when the store is empty.
        """
        self.specs  # noqa: B018 - loads what is pending and refuses an empty store
        pick = np.searchsorted(self._cumulative, rng.random(batch) * self._cumulative[-1], side="right")
        pick = np.minimum(pick, len(self._summaries) - 1)
        sizes = np.array([self._summaries[index].rows for index in pick])
        starts = np.array([self._starts[index] for index in pick]) + rng.integers(0, sizes)
        index = (starts[:, None] + np.arange(length)) % self._rows
        rows = {name: column[:self._rows].take(index, axis=0) for name, column in self._columns.items()}
        if "image" in self._columns:
            firsts = np.array(self._starts)[np.searchsorted(self._starts, index, side="right") - 1]
            rows["scene"] = self._columns["image"][:self._rows].take(firsts, axis=0)
        return rows

    def rows_of(self, index: int) -> dict[str, np.ndarray]:
        """Views of an episode's rows, by the names of `sample`."""
        self._load_pending()
        rows = slice(self._starts[index], self._starts[index] + self._summaries[index].rows)
        return {name: column[rows] for name, column in self._columns.items()}

    def add_rows(self, specs: Specs, rows: dict[str, np.ndarray], summary: EpisodeSummary, weight: float = 1.0
                 ) -> None:
        """Adds an episode given by its rows, which `summary` describes. Raises `DatasetError` for other specs."""
        self._load_pending()
        self._require(specs)
        self._append_rows(rows, summary, weight)

    def _load_pending(self) -> None:
        pending, self._pending = self._pending, []
        layers = LabelLayers()
        for path, weight in pending:
            try:
                recorded, digest = read_verified(path)
                if (episode := layers.labelled(path, recorded)) is None:
                    self.rejected.append(path)
                else:
                    self._append(episode, weight, digest if episode is recorded else "")
            except DatasetError as error:
                message = str(error)
                self.broken[path] = message if message.startswith(str(path)) else f"{path}: {message}"
        if self.broken and not self._skip_broken:
            raise DatasetError(f"{len(self.broken)} of {len(self.broken) + len(self._summaries)} episode files cannot "
                               f"be used (remove them, or skip broken ones): {'; '.join(self.broken.values())}")

    def _append(self, episode: Episode, weight: float, digest: str = "") -> None:
        """digest: the episode's content hash where it is known already."""
        self._require(episode.specs)
        summary = EpisodeSummary(len(episode) + 1, float(episode.reward.sum()), float(episode.cost.sum()),
                                 episode.success, digest or content_hash(episode), episode.metadata)
        self._append_rows(_episode_rows(episode), summary, weight)

    def _require(self, specs: Specs) -> None:
        if self._specs is None:
            self._specs = specs
        elif difference := self._specs.difference(specs):
            raise DatasetError(f"specs differ from the other episodes: {difference}")

    def _append_rows(self, rows: dict[str, np.ndarray], summary: EpisodeSummary, weight: float) -> None:
        end = self._rows + summary.rows
        for name, values in rows.items():
            column = self._columns.get(name)
            if column is None:
                column = np.empty((max(summary.rows, 256), *values.shape[1:]), values.dtype)
            if len(column) < end:
                # Doubling keeps adding an episode cheap however many there are.
                grown = np.empty((max(end, 2 * len(column)), *column.shape[1:]), column.dtype)
                grown[:self._rows] = column[:self._rows]
                column = grown
            column[self._rows:end] = values
            self._columns[name] = column
        self._starts.append(self._rows)
        self._summaries.append(summary)
        self._weights.append(weight)
        self._rows = end
        previous = self._cumulative[-1] if len(self._cumulative) else 0.0
        self._cumulative = np.append(self._cumulative, previous + weight * summary.rows)


def _episode_rows(episode: Episode) -> dict[str, np.ndarray]:
    """The T + 1 rows of an episode in the arrival convention of `EpisodeStore.sample`."""
    steps = len(episode)

    def arrival(values: np.ndarray) -> np.ndarray:
        return np.concatenate([np.zeros_like(values[:1]), values])

    def departure(values: np.ndarray) -> np.ndarray:
        return np.concatenate([values, np.zeros_like(values[:1])])

    def to_go(values: np.ndarray) -> np.ndarray:
        return departure(np.cumsum(values[::-1], dtype=np.float64)[::-1].astype(np.float32))

    position = np.arange(steps + 1)
    rows = {
        "action": arrival(episode.executed_action), "policy_action": arrival(episode.policy_action),
        "reward": arrival(episode.reward), "cost": arrival(episode.cost),
        "intervention": arrival(episode.intervention), "is_first": position == 0, "is_last": position == steps,
        "is_terminal": arrival(episode.terminated), "next_action": departure(episode.executed_action),
        "has_next_action": position < steps, "return_to_go": to_go(episode.reward), "cost_to_go": to_go(episode.cost),
        "undisturbed": np.cumsum(arrival(episode.cost > 0)) - arrival(episode.cost > 0) == 0,
    }
    if taken := sorted(rows.keys() & episode.observations.keys()):
        raise DatasetError(f"observation/{taken[0]}: the name is taken by a field of the batch")
    return {**episode.observations, **rows}


def episode_files(sources: Path | str | Iterable[Path | str]) -> list[Path]:
    """The files that `sources`, files and directories, stand for. Raises `DatasetError` for one without any."""
    files: list[Path] = []
    for source in [sources] if isinstance(sources, (str, Path)) else sources:
        path = Path(source)
        if path.is_dir():
            # Names with a leading dot are files that a killed writer left behind.
            found = sorted(item for item in path.rglob("*") if item.suffix in _EPISODE_SUFFIXES
                           and not item.name.startswith("."))
            if not found:
                raise DatasetError(f"{path}: no episode files (*.h5) in this directory; collect or convert some first")
            files += found
        elif path.is_file():
            files.append(path)
        else:
            raise DatasetError(f"{path}: no such episode file or directory")
    return files
