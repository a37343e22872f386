"""The page as one browser sees it: a list to choose from, a player to mark in, and verdict, note and history."""

from __future__ import annotations

import html
import json
from functools import partial
from pathlib import Path
from typing import Any

from nicegui import ui
from nicegui.element import Element
from nicegui.events import GenericEventArguments

from data_collection.review.dataset import ReviewDataset
from data_collection.review.keys import KEYS
from data_collection.review.player import Player, rounded
from data_collection.review.selection import FILTERS, ORDERS, chosen, verdict_counts
from safe_policy_core.data.labels import Label
from safe_policy_core.errors import DatasetError

CHANGES = ("accept", "reject", "reopen", "take_suggestion", "first_contact")
"""Commands that change the labels of the chosen episode."""
POLL_PERIOD = 0.25
"""[s] Between two looks for what the reader, another window or another process changed."""


class EpisodeList(Element, component="episode_list.js", default_props="rows=[]"):
    """Props rows (JSON) and selected; emits `choose` with an index."""


class Scatter(Element, component="scatter.js", default_props="rows=[]"):
    """Props rows (JSON) and selected; emits `choose` with an index."""


class Timeline(Element, component="timeline.js"):
    """Props tracks (JSON) and keys; emits `mark` and `command`."""


class ReviewPage:
    """One window. It changes labels through `dataset` only, which other windows share."""

    def __init__(self, dataset: ReviewDataset) -> None:
        self._dataset = dataset
        self._version = -1
        self._selected: int | None = None
        self._rows: list[dict[str, Any]] = []
        self._tracks: dict[str, Any] | None = None
        self._kept_note = ""
        self._player = Player(dataset)
        ui.add_css(Path(__file__).with_name("style.css"))
        ui.query("body").classes("review")
        self._build()
        self._refresh()
        ui.timer(POLL_PERIOD, self._look)

    def _build(self) -> None:
        with ui.element("div").classes("top"):
            ui.label("Review").classes("title")
            ui.label(str(self._dataset.folder)).classes("folder")
            self._progress = ui.linear_progress(0.0, show_value=False).classes("progress")
            self._counts = ui.label().classes("counts")
            ui.label(f"signed {self._dataset.who}").classes("who")
            ui.button("?", on_click=lambda: self._help.open()).props("flat dense round").classes("helper")
        with ui.element("div").classes("board"):
            with ui.element("section").classes("left"):
                self._search = ui.input(placeholder="search name or task   /", on_change=self._refresh) \
                    .props("dense outlined clearable").classes("search")
                with ui.element("div").classes("choices"):
                    self._filter, self._order = (
                        ui.select(list(options), value=next(iter(options)), on_change=self._refresh)
                        .props("dense outlined") for options in (FILTERS, ORDERS))
                self._list = EpisodeList().on("choose", lambda event: self._choose(event.args))
            with ui.element("section").classes("middle"):
                self._name = ui.label().classes("episode")
                self._timeline = Timeline().on("mark", self._mark).on("command", self._command)
                self._timeline.props["keys"] = {key.key: key.command for key in KEYS}
            with ui.element("section").classes("right"):
                ui.label("reward and cost of every episode").classes("caption")
                self._scatter = Scatter().on("choose", lambda event: self._choose(event.args))
                with ui.element("div").classes("verdicts"):
                    for command in ("accept", "reject", "undo"):
                        ui.button(command.capitalize(), color=None, on_click=partial(self._run, command)) \
                            .props("unelevated no-caps").classes(command).tooltip(f"key {command[0]}")
                self._note = ui.textarea(placeholder="note   n").props("outlined dense autogrow").classes("note")
                self._note.on("blur", self._save_note)
                ui.label("history").classes("caption")
                self._history = ui.html(sanitize=False).classes("history")
        with ui.dialog() as self._help, ui.card().classes("help"):
            rows = (f"<tr><th>{html.escape(_shown(key.key))}</th><td>{html.escape(key.help)}</td></tr>"
                    for key in KEYS if key.help)
            ui.html(f"<table>{''.join(rows)}</table>", sanitize=False)
            ui.label("Drag in the lanes of reward and cost to mark; a drag that begins on a mark erases. Labels are "
                     "kept in labels.jsonl beside the episodes, which stay as they were recorded.")

    def _look(self) -> None:
        if self._dataset.poll() != self._version:
            self._refresh()

    def _refresh(self) -> None:
        """Shows what has changed: the list, the points, the counts, and the labels of the chosen episode."""
        self._version = self._dataset.poll()
        every = self._dataset.rows()
        self._rows = chosen(every, self._filter.value, self._order.value, self._search.value or "")
        for element, rows in ((self._list, self._rows), (self._scatter, every)):
            element.props["rows"] = json.dumps(rows)
        counts = verdict_counts(every)
        done = counts["accept"] + counts["reject"]
        self._progress.value = done / max(1, len(every) - counts["problem"])
        self._counts.text = f"{done} of {len(every) - counts['problem']} reviewed · {counts['accept']} accepted · " \
            f"{counts['reject']} rejected" + (f" · {counts['problem']} damaged" if counts["problem"] else "")
        for problem in self._dataset.problems:
            self._counts.text += f" · {problem}"
        if self._selected is None and self._rows and all(row["recording"] or row["problem"] for row in every):
            self._choose(self._rows[0]["index"])
        elif self._selected is not None:
            self._show_labels()

    def _choose(self, index: int) -> None:
        """Shows another episode."""
        self._save_note()
        self._selected = index
        self._note.value = self._kept_note = self._dataset.row(index).get("note", "")
        entry = self._dataset.entries[index]
        for element in (self._list, self._scatter):
            element.props["selected"] = index
        self._name.text = entry.problem or entry.name
        self._tracks = None
        if entry.recording and not entry.problem:
            try:
                self._tracks = self._player.tracks(index, self._near(index))
            except DatasetError as error:
                self._name.text = str(error)
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
        shown = self._tracks and self._tracks | {kind: rounded(values) for kind, values in levels.items()}
        self._timeline.props["tracks"] = json.dumps(shown) if shown else ""
        row = self._dataset.row(self._selected)
        self._name.classes(replace="episode " + row.get("verdict", ""))
        if row.get("note", "") != self._kept_note:  # else a person may be writing it
            self._note.value = self._kept_note = row.get("note", "")
        undone = {label.text for label in history if label.kind == "undo"}
        self._history.content = "".join(_line(label, label.id in undone) for label in reversed(history)
                                        if label.kind != "undo")

    def _mark(self, event: GenericEventArguments) -> None:
        """A mark that the player made, and already shows."""
        what = event.args
        self._try(lambda: self._dataset.mark(what["key"], what["kind"], [(what["first"], what["end"])], what["value"]))

    def _command(self, event: GenericEventArguments) -> None:
        # A key pressed before the next episode was on the screen is not meant for it.
        if event.args["key"] == (self._tracks and self._tracks["key"]) or event.args["command"] not in CHANGES:
            self._run(event.args["command"], event.args["step"])

    def _run(self, command: str, step: int = 0) -> None:
        """One command of `KEYS` that the player does not do by itself."""
        moves = {"next": 1, "previous": -1}
        cycles = {"filter": (self._filter, FILTERS), "sort": (self._order, ORDERS)}
        if command in moves:
            self._go(moves[command])
        elif command in cycles:
            select, options = cycles[command]
            names = list(options)
            select.value = names[(names.index(select.value) + 1) % len(names)]
        elif command == "help":
            self._help.open()
        elif command == "undo":
            self._undo()
        elif self._selected is not None:
            self._change(command, step, self._selected)

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
            ui.notify("nothing of yours to undo")

    def _save_note(self) -> None:
        text, index = self._note.value or "", self._selected
        if index is not None and text != self._kept_note:
            self._kept_note = text
            self._try(lambda: self._dataset.write_note(index, text))

    def _try(self, change: Any) -> bool:
        """Makes a change and shows it, or says why not."""
        try:
            change()
        except DatasetError as error:
            ui.notify(str(error), type="negative")
            return False
        finally:
            self._refresh()
        return True


def _shown(key: str) -> str:
    return {" ": "Space", "ArrowRight": "→", "ArrowLeft": "←", "ArrowDown": "↓ j", "ArrowUp": "↑ k", "u": "u, Ctrl+z",
            "Escape": "Esc"}.get(key, key)


def _line(label: Label, undone: bool) -> str:
    """One line of the history, as HTML."""
    steps = f" {label.steps[0]}–{label.steps[1] - 1}" if label.steps else ""
    what = {"verdict": {"accept": "accepted", "reject": "rejected", "open": "reopened"}.get(label.text, ""),
            "note": f"note “{label.text}”"}.get(label.kind, f"{label.kind} {label.value:g}{steps}")
    who, when = html.escape(label.who or label.source), html.escape(label.when[:16].replace("T", " "))
    return f"<div class={'undone' if undone else 'holds'}><b>{html.escape(what)}</b> {who} · {when}</div>"
