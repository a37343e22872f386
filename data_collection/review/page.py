"""The page as one browser sees it: a list to choose from, a player to mark in, and verdict, note and history."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from data_collection.review.dataset import ReviewDataset
from data_collection.review.keys import KEYS, shown
from data_collection.review.player import Player, rounded
from data_collection.review.selection import FILTERS, ORDERS, chosen, verdict_counts
from safe_policy_core.data.labels import Label
from safe_policy_core.errors import DatasetError

CHANGES = ("accept", "reject", "reopen", "take_suggestion", "first_contact")
"""Commands that change the labels of the chosen episode."""


class ReviewPage:
    """One window. It changes labels through `dataset` only, which other windows share.

    The window shows `changes()` and tells `take` what a person does. What it `lacks` takes a while: `find` works it out
    beside the rest. Everything else is used by one thread at a time.
    """

    def __init__(self, dataset: ReviewDataset) -> None:
        self._dataset = dataset
        self._version = -1
        self._selected: int | None = None
        self._rows: list[dict[str, Any]] = []
        self._tracks: dict[str, Any] | None = None
        self._player = Player(dataset)
        self._view = {"filter": next(iter(FILTERS)), "order": next(iter(ORDERS)), "search": ""}
        self._sent: dict[str, Any] = {}
        self._state: dict[str, Any] = {
            "folder": str(dataset.folder), "who": dataset.who, "keys": {key.key: key.command for key in KEYS},
            "help": [(shown(key.key), key.help) for key in KEYS if key.help],
            "choices": {"filter": list(FILTERS), "order": list(ORDERS)}}

    def changes(self) -> dict[str, Any]:
        """What the window does not show yet, JSON-ready. Looks for what others changed."""
        if self._dataset.poll() != self._version:
            self._refresh()
        found = {name: value for name, value in self._state.items() if self._sent.get(name, self) != value}
        self._sent.update(found)
        self._state.pop("notice", None)
        self._sent.pop("notice", None)
        return found

    def lacks(self) -> int | None:
        """The episode shown, when the list is complete and its suggestion is not there yet."""
        waits = self._tracks is not None and "suggestion" not in self._tracks and self._dataset.listed
        return self._selected if waits else None

    def find(self, index: int) -> tuple[int, list[tuple[int, int]]]:
        """An episode and its suggestion, for `add`; may run in another thread."""
        try:
            return index, self._player.suggestion(index)
        except DatasetError:
            return index, []

    def add(self, index: int, suggestion: list[tuple[int, int]]) -> None:
        """Shows what `find` found, unless another episode is shown by now."""
        if self._tracks is not None and self._selected == index:
            self._tracks["suggestion"] = suggestion
            self._show_labels()

    def take(self, text: str) -> None:
        """What a person did, as JSON: `do` names it. What no page of ours sends is answered with a notice."""
        try:
            message = json.loads(text)
            {"choose": lambda: self._choose(int(message["index"])),
             "view": lambda: self._look(message),
             "mark": lambda: self._mark(message),
             "note": lambda: self._note(int(message["index"]), str(message["text"])),
             "command": lambda: self._command(message)}[message["do"]]()
        except (KeyError, TypeError, ValueError, IndexError, OverflowError, RecursionError) as error:
            self._state["notice"] = f"not understood: {error!r}"

    def _look(self, message: dict[str, Any]) -> None:
        """Another filter, order or text to search for."""
        view = {**self._view, **{name: str(message[name]) for name in self._view if name in message}}
        FILTERS[view["filter"]], ORDERS[view["order"]]  # a KeyError for what there is not
        self._view = view
        self._refresh()

    def _refresh(self) -> None:
        """Shows what has changed: the list, the points, the counts, and the labels of the chosen episode."""
        self._version = self._dataset.poll()
        every = self._dataset.rows()
        self._rows = chosen(every, self._view["filter"], self._view["order"], self._view["search"])
        counts = verdict_counts(every)
        done, usable = counts["accept"] + counts["reject"], len(every) - counts["problem"]
        told = [f"{done} of {usable} reviewed", f"{counts['accept']} accepted", f"{counts['reject']} rejected",
                *([f"{counts['problem']} damaged"] if counts["problem"] else []), *self._dataset.problems]
        self._state |= {**self._view, "rows": json.dumps(self._rows), "every": json.dumps(every),
                        "counts": " · ".join(told), "progress": done / max(1, usable)}
        usable = [row for row in self._rows if not row["problem"]] or self._rows
        # Before every file is read nobody knows which one has the worst score.
        known = every if self._dataset.scored else usable[:1]
        if self._selected is not None:
            self._show_labels()
        elif usable and all(row["recording"] or row["problem"] for row in known):
            self._choose(usable[0]["index"])

    def _choose(self, index: int) -> None:
        """Shows another episode."""
        entry = self._dataset.entries[index]
        self._selected, self._tracks = index, None
        self._state |= {"selected": index, "name": entry.problem or entry.name}
        if entry.recording and not entry.problem:
            try:
                self._tracks = self._player.tracks(index, self._near(index))
            except DatasetError as error:
                self._state["name"] = str(error)
        self._show_labels()

    def _near(self, index: int) -> list[int]:
        """The episodes before and after in the list, whose pictures are fetched ahead."""
        place = self._place(index)
        return [self._rows[near]["index"] for near in (place + 1, place - 1) if 0 <= near < len(self._rows)]

    def _place(self, index: int | None) -> int:
        return next((place for place, row in enumerate(self._rows) if row["index"] == index), -1)

    def _show_labels(self) -> None:
        assert self._selected is not None
        levels, history = self._dataset.labels(self._selected)
        labelled = {kind: rounded(values) for kind, values in levels.items()}
        tracks = self._tracks and {"suggestion": []} | self._tracks | labelled
        row = self._dataset.row(self._selected)
        undone = {label.text for label in history if label.kind == "undo"}
        self._state |= {"tracks": json.dumps(tracks) if tracks else "", "verdict": row.get("verdict", ""),
                        "note": row.get("note", ""),
                        "history": [_line(label, label.id in undone) for label in reversed(history)
                                    if label.kind != "undo"]}

    def _mark(self, what: dict[str, Any]) -> None:
        """A mark that the player made, and already shows."""
        self._try(lambda: self._dataset.mark(int(what["key"]), str(what["kind"]),
                                             [(int(what["first"]), int(what["end"]))], float(what["value"])))

    def _note(self, index: int, text: str) -> None:
        self._try(lambda: self._dataset.write_note(index, text))

    def _command(self, message: dict[str, Any]) -> None:
        """One command of `KEYS` that the player does not do by itself."""
        command, moves = str(message["command"]), {"next": 1, "previous": -1}
        cycles = {"filter": ("filter", list(FILTERS)), "sort": ("order", list(ORDERS))}
        if command in moves:
            self._go(moves[command])
        elif command in cycles:
            kind, names = cycles[command]
            self._look({kind: names[(names.index(self._view[kind]) + 1) % len(names)]})
        elif command == "undo":
            self._undo()
        # A key pressed before the next episode was on the screen is not meant for it.
        elif command in CHANGES and self._selected is not None and message["key"] == self._selected:
            self._change(command, int(message["step"]), self._selected)

    def _change(self, command: str, step: int, index: int) -> None:
        """What is done to the chosen episode."""
        if command in ("accept", "reject", "reopen"):
            place = self._place(index)
            done = self._try(lambda: self._dataset.decide(index, {"reopen": "open"}.get(command, command)))
            if done and command != "reopen":
                # In a filtered list the episode may have gone, and the next one stands in its place.
                self._go(1 if self._place(index) >= 0 else 0, place)
            return

        def take() -> None:
            intervals = self._player.suggestion(index, step if command == "first_contact" else None)
            if not intervals:
                raise DatasetError("nothing here suggests a contact; mark it by hand, or press Shift+C in its frame")
            self._dataset.mark(index, "cost", intervals, 1.0)

        self._try(take)

    def _go(self, by: int, place: int | None = None) -> None:
        place = (self._place(self._selected) if place is None else place) + by
        if self._rows:
            self._choose(self._rows[max(0, min(place, len(self._rows) - 1))]["index"])

    def _undo(self) -> None:
        undone: list[int | None] = []
        if self._try(lambda: undone.append(self._dataset.undo())) and undone[0] is not None:
            self._choose(undone[0])
        elif undone:
            self._state["notice"] = "nothing of yours to undo"

    def _try(self, change: Callable[[], object]) -> bool:
        """Makes a change and shows it, or says why not."""
        try:
            change()
        except DatasetError as error:
            self._state["notice"] = str(error)
            return False
        finally:
            self._refresh()
        return True


def _line(label: Label, undone: bool) -> dict[str, Any]:
    """One line of the history."""
    steps = f" {label.steps[0]}–{label.steps[1] - 1}" if label.steps else ""
    what = {"verdict": {"accept": "accepted", "reject": "rejected", "open": "reopened"}.get(label.text, ""),
            "note": f"note “{label.text}”"}.get(label.kind, f"{label.kind} {label.value:g}{steps}")
    return {"what": what, "by": f"{label.who or label.source} · {label.when[:16].replace('T', ' ')}", "undone": undone}
