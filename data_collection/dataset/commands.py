"""`safe-policy dataset check|info|validate|plot|merge|split|filter|relabel|recrop|mix|split-safe`."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tqdm import tqdm

from data_collection.dataset import mixing, relabelling
from data_collection.dataset.check import Checked, check_files
from data_collection.dataset.copying import copy_labels, copy_rows, new_folder, seal
from data_collection.dataset.files import EPISODE_SUFFIXES, RECORDING_SUFFIXES, dataset_files, inside
from data_collection.dataset.manifest import MANIFEST, compare, write_manifest
from data_collection.dataset.split_safe import SplitSafe
from data_collection.dataset.summary import OUTCOMES, Row, outcome_counts, read_rows, summary
from safe_policy_core.data.dsrl import DsrlDataset, find_dsrl_file, read_dsrl
from safe_policy_core.data.labels import LabelLayer
from safe_policy_core.data.sources import means_dsrl
from safe_policy_core.errors import DatasetError, printable

Folder = tyro.conf.Positional[Path]
FolderOrFile = tyro.conf.Positional[Path]


@dataclass
class Check:
    """Verifies checksums, order of time, names and copies of every episode and recording. Exit code 1 for a bad one."""

    folder: Folder
    """Folder of episodes (*.h5) and recordings (*.mcap), with the folders in it."""
    seal: bool = False
    """Write episodes.sha256, by which a later check knows renamed, swapped, replaced and lost files."""
    workers: int = os.cpu_count() or 1
    """Processes."""

    def run(self) -> dict[str, Any]:
        """Checks everything. Raises `DatasetError` only for a folder without files."""
        paths = dataset_files(self.folder, (*EPISODE_SUFFIXES, *RECORDING_SUFFIXES))
        if not paths:
            raise DatasetError(f"{self.folder}: no episodes (*.h5) and no recordings (*.mcap) in this folder")
        if self.workers < 1:
            raise DatasetError(f"workers: expected at least 1, got {self.workers}")
        checked: list[Checked] = []
        for item in tqdm(check_files(paths, self.workers), total=len(paths), desc="check", unit="file", disable=None):
            checked.append(item)
        bad = {item.path: item.problem for item in checked if item.problem}
        if self.seal:
            write_manifest(self.folder, checked)
        try:
            bad |= compare(self.folder, checked)
        except DatasetError as error:
            bad[self.folder / MANIFEST] = str(error)
        lines = _lines(self.folder, bad)
        steps = sum(item.steps for item in checked)
        end = f"{len(checked)} files, {steps} steps: " + (f"{len(bad)} bad" if bad else "all whole")
        return {"folder": str(self.folder), "files": len(checked), "steps": steps, "bad": _relative(self.folder, bad),
                "_text": "\n".join([*lines, end]), "_exit_code": 1 if bad else 0}


@dataclass
class Info:
    """What there is: episodes, steps, time, outcomes, tasks, operators, interventions, dropped messages; of a DSRL file
    returns, costs, and what keeps the usual limits."""

    folder: FolderOrFile
    """Folder of episodes; or one DSRL file, by path, name or task."""

    def run(self) -> dict[str, Any]:
        if (dsrl := _dsrl(self.folder)) is not None:
            from data_collection.dataset import dsrl_file

            return dsrl_file.summary(*dsrl)
        rows, bad = read_rows(self.folder)
        return {"folder": str(self.folder), **summary(rows), "bad": _relative(self.folder, bad)}


@dataclass
class Validate:
    """Whether whole files are sensible training data: bounds, timing, workspace, labels, pictures, equal specs."""

    folder: FolderOrFile
    """Folder of episodes; or one DSRL file, by path, name or task."""

    def run(self) -> dict[str, Any]:
        """Looks at every episode. Exit code 1 where a person should look, too."""
        if (dsrl := _dsrl(self.folder)) is not None:
            from data_collection.dataset import dsrl_file

            found = list(dsrl_file.doubts(*dsrl))
            end = f"{len(dsrl[1])} episodes: " + (f"{len(found)} things to look at" if found else "nothing to look at")
            return {"file": str(dsrl[0]), "episodes": len(dsrl[1]), "doubts": found, "_text": "\n".join([*found, end]),
                    "_exit_code": 1 if found else 0}
        from data_collection.dataset.validate import differing_specs, doubts

        rows, broken = read_rows(self.folder)
        lines = {path: [problem] for path, problem in broken.items()}
        for row in tqdm(rows, desc="validate", unit="episode", disable=None):
            if doubtful := doubts(row):
                lines[row.path] = doubtful
        for path, difference in differing_specs(rows).items():
            lines.setdefault(path, []).append(f"specs differ from most: {difference}")
        joined = {path: "; ".join(problems) for path, problems in lines.items()}
        end = f"{len(rows)} episodes: " + (f"{len(joined)} to look at" if joined else "nothing to look at")
        return {"folder": str(self.folder), "episodes": len(rows), "doubts": _relative(self.folder, joined),
                "_text": "\n".join([*_lines(self.folder, joined), end]), "_exit_code": 1 if joined else 0}


@dataclass
class Plot:
    """Writes PNG pictures: reward against cost, the distribution as FOSP's Figure 10, workspace heat map, actions; of a
    DSRL file the reward-cost plane and actions."""

    folder: FolderOrFile
    """Folder of episodes; or one DSRL file, by path, name or task."""
    out: Path | None = None
    """Folder for the pictures; when not given plots, in that folder or beside the file."""

    def run(self) -> dict[str, Any]:
        if (dsrl := _dsrl(self.folder)) is not None:
            from data_collection.dataset import dsrl_file

            path, dataset = dsrl
            drawn = dsrl_file.write_plots(path, dataset, self.out or path.parent / "plots")
            return {"plots": [str(picture) for picture in drawn], "episodes": len(dataset)}
        from data_collection.dataset.plots import write_plots

        rows, bad = _usable(self.folder)
        files = write_plots(rows, self.out or self.folder / "plots")
        return {"plots": [str(path) for path in files], "episodes": len(rows), "bad": _relative(self.folder, bad)}


@dataclass
class Merge:
    """Puts the whole episodes of several datasets into a new one; copies of one episode come once."""

    folders: tyro.conf.Positional[tuple[Path, ...]]
    out: Path
    """New folder."""

    def run(self) -> dict[str, Any]:
        rows: list[Row] = []
        bad: dict[Path, str] = {}
        for folder in self.folders:
            found, broken = read_rows(folder)
            rows, bad = rows + found, bad | broken
        return _copied(rows, self.out, bad)


@dataclass
class Split:
    """Divides a dataset into new ones, each with the same mixture of outcomes."""

    folder: Folder
    out: Path
    """New folder; each part becomes a folder in it."""
    parts: tuple[tuple[str, float], ...] = (("train", 0.9), ("test", 0.1))
    """Names and shares: --parts train 0.8 validation 0.1 test 0.1."""
    seed: int = 0

    def run(self) -> dict[str, Any]:
        rows, bad = _usable(self.folder)
        targets = {name: inside(self.out, name) for name, _ in self.parts}
        if len(targets) < len(self.parts):
            raise DatasetError(f"parts: expected each name once, got {' '.join(name for name, _ in self.parts)}")
        divided = mixing.parts(rows, dict(self.parts), self.seed)
        new_folder(self.out)
        return {"parts": {name: _copied(chosen, targets[name], {}) for name, chosen in divided.items()},
                "bad": _relative(self.folder, bad)}


@dataclass
class Filter:
    """Copies the episodes that meet every condition given into a new dataset."""

    folder: Folder
    out: Path
    """New folder."""
    outcome: tuple[Literal["safe_reach", "safe_no_reach", "contact_reach", "contact_no_reach"], ...] = ()
    task: tuple[str, ...] = ()
    operator: tuple[str, ...] = ()
    verdict: tuple[Literal["accept", "reject", "open"], ...] = ("accept", "open")
    """What a reviewer said."""
    min_reward: float = -float("inf")
    max_cost: float = float("inf")
    min_steps: int = 1
    interventions: bool | None = None
    """Only episodes with, or only those without, a person's intervention."""

    def run(self) -> dict[str, Any]:
        rows, bad = _usable(self.folder)
        kept = [row for row in rows if self._keeps(row)]
        if not kept:
            raise DatasetError(f"filter: none of {len(rows)} episodes in {self.folder} meets the conditions")
        return _copied(kept, self.out, bad)

    def _keeps(self, row: Row) -> bool:
        wanted: tuple[tuple[tuple[str, ...], Callable[[], str]], ...] = (
            (self.outcome, lambda: row.outcome), (self.task, lambda: row.text("task")),
            (self.operator, lambda: row.text("operator")), (self.verdict, lambda: row.verdict))
        return (all(not allowed or value() in allowed for allowed, value in wanted)
                and row.reward >= self.min_reward and row.cost <= self.max_cost and len(row.episode) >= self.min_steps
                and self.interventions in (None, bool(row.episode.intervention.any())))


@dataclass
class Relabel:
    """Appends reward and cost labels for many episodes to labels.jsonl; episode files stay as recorded."""

    folder: Folder
    who: str
    """Whose labels these are."""
    table: Path | None = None
    """CSV with the columns file,kind,first,end,value: kind (reward, cost) is value in steps first <= step < end."""
    paper_rule: bool = False
    """Cost from the first contact until the obstacle is at rest, found from the wrench or the pictures."""

    def run(self) -> dict[str, Any]:
        if (self.table is None) == (not self.paper_rule):
            raise DatasetError("relabel: expected either --table or --paper-rule")
        rows, bad = _usable(self.folder)
        before = outcome_counts(rows)
        changes = relabelling.by_paper_rule(tqdm(rows, desc="relabel", unit="episode", disable=None)) \
            if self.table is None else relabelling.from_table(self.folder, self.table, rows)
        source = "paper_rule" if self.table is None else "table"
        count = relabelling.write_labels(changes, self.who, source)
        return {"labels": count, "outcomes_before": before, "outcomes": outcome_counts(read_rows(self.folder)[0]),
                "bad": _relative(self.folder, bad)}


@dataclass
class Recrop:
    """Makes the training files again from the recordings beside them, with another window or size, and labels."""

    folder: Folder
    out: Path
    """New folder."""
    image_size: tuple[int, int] | None = None
    """Height and width of the pictures [pixels]."""
    crop: tuple[int, int, int, int] | None = None
    """Window of the raw picture: top, left, height, width [pixels]."""

    def run(self) -> dict[str, Any]:
        from data_collection.conversion import convert_file

        rows, bad = _usable(self.folder)
        new_folder(self.out)
        labels, made = LabelLayer(self.out), 0
        for row in tqdm(rows, desc="recrop", unit="episode", disable=None):
            recording = row.path.with_suffix(".mcap")
            try:
                convert_file(recording, self.out / f"{row.path.stem}.h5", self.image_size, self.crop)
            except DatasetError as error:
                bad[row.path] = str(error)
                continue
            copy_labels(LabelLayer(row.path.parent), labels, row.recording)
            made += 1
        if not made:
            raise DatasetError(f"recrop: none of {len(rows)} episodes has a usable recording (NAME.mcap) beside it: "
                               f"{next(iter(bad.values()), '')}")
        seal(self.out)
        return {"out": str(self.out), "count": made, "left_out": _relative(self.folder, bad)}


@dataclass
class Mix:
    """How far a dataset is from its mixing target; with --out, a new one with exactly that mixture."""

    folder: Folder
    target: tuple[int, int, int, int] = mixing.PAPER_TARGET
    """Episodes that touched nothing and reached, touched nothing and did not reach, touched and reached, touched and
    did not reach. By default the paper's 200."""
    out: Path | None = None
    """New folder for a drawn subset with the target's counts."""
    seed: int = 0

    def run(self) -> dict[str, Any]:
        if min(self.target) < 0 or not sum(self.target):
            raise DatasetError(f"target: expected counts of episodes, got {self.target}")
        rows, bad = read_rows(self.folder)
        # What a reviewer rejected is not trained on, so it does not count.
        rows = [row for row in rows if row.verdict != "reject"]
        text = mixing.progress(rows, self.target)
        result = {"counts": outcome_counts(rows), "target": dict(zip(OUTCOMES, self.target, strict=True)),
                  "bad": _relative(self.folder, bad), "_text": "\n".join([text, *_lines(self.folder, bad)])}
        if self.out is not None:
            result |= _copied(mixing.choose(rows, self.target, self.seed), self.out, bad)
        return result


@dataclass
class Dataset:
    """Tools for folders of recorded episodes."""

    tool: tyro.conf.OmitArgPrefixes[
        Annotated[Check, tyro.conf.subcommand("check")] | Annotated[Info, tyro.conf.subcommand("info")]
        | Annotated[Validate, tyro.conf.subcommand("validate")] | Annotated[Plot, tyro.conf.subcommand("plot")]
        | Annotated[Merge, tyro.conf.subcommand("merge")] | Annotated[Split, tyro.conf.subcommand("split")]
        | Annotated[Filter, tyro.conf.subcommand("filter")] | Annotated[Relabel, tyro.conf.subcommand("relabel")]
        | Annotated[Recrop, tyro.conf.subcommand("recrop")] | Annotated[Mix, tyro.conf.subcommand("mix")]
        | Annotated[SplitSafe, tyro.conf.subcommand("split-safe")]]

    def run(self) -> dict[str, Any]:
        return self.tool.run()


def _dsrl(place: Path) -> tuple[Path, DsrlDataset] | None:
    """The DSRL file that is meant, read, or None for a folder."""
    if not means_dsrl(str(place)):
        if place.is_file():
            raise DatasetError(f"{place}: expected a folder of episodes, or a DSRL file")
        return None
    path = find_dsrl_file(place)
    return path, read_dsrl(path)


def _usable(folder: Path) -> tuple[list[Row], dict[Path, str]]:
    rows, bad = read_rows(folder)
    if not rows:
        raise DatasetError(f"{folder}: none of {len(bad)} episode files can be used: {next(iter(bad.values()))}")
    return rows, bad


def _copied(rows: list[Row], out: Path, bad: dict[Path, str]) -> dict[str, Any]:
    copied, left_out = copy_rows(rows, out)
    return {"out": str(out), "count": len(copied), "outcomes": outcome_counts(copied),
            "left_out": {printable(path): problem for path, problem in (bad | left_out).items()}}


def _relative(folder: Path, problems: dict[Path, str]) -> dict[str, str]:
    return {printable(path.relative_to(folder)): printable(problem) for path, problem in sorted(problems.items())}


def _lines(folder: Path, problems: dict[Path, str]) -> list[str]:
    return [f"{name}: {problem}" for name, problem in _relative(folder, problems).items()]
