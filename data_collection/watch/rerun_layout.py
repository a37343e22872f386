"""Where everything stands in Rerun's window."""

from __future__ import annotations

import rerun.blueprint as rrb

PATH_SHOWN = 5.0
"""[s] How much of the tool's path is drawn."""
EYE, TABLE = (1.1, -0.8, 0.6), (0.35, 0.0, 0.25)
"""[m, base frame] From where one looks at the arm, and where to."""


def layout() -> rrb.Blueprint:
    """Camera, arm and episode clock above; action tracks, safety estimates and the gate's decisions below."""
    recent = rrb.VisibleTimeRange("time", start=rrb.TimeRangeBoundary.cursor_relative(seconds=-PATH_SHOWN),
                                  end=rrb.TimeRangeBoundary.cursor_relative())
    columns = rrb.TextLogColumns(text_log_columns=[rrb.encodings.TextLogColumn(kind) for kind in ("LogLevel", "Body")])
    above = rrb.Horizontal(
        rrb.Spatial2DView(origin="camera", name="Camera"),
        rrb.Spatial3DView(
            origin="arm", name="Arm, target and limits",
            eye_controls=rrb.EyeControls3D(position=EYE, look_target=TABLE),
            overrides={"arm/path": [rrb.VisibleTimeRanges([recent])]}),
        rrb.Vertical(rrb.TextDocumentView(origin="episode/clock", name="Episode"),
                     rrb.TextLogView(origin="gate/decisions", name="Gate decisions", columns=columns),
                     row_shares=[1, 2]),
        column_shares=[2, 3, 2])
    below = rrb.Horizontal(
        rrb.Tabs(*(rrb.TimeSeriesView(origin=f"action/{name}", name=f"Action, {name}",
                                      axis_y=rrb.ScalarAxis(range=(-1.05, 1.05)))
                   for name in ("executed", "requested", "human"))),
        rrb.TimeSeriesView(origin="safety", name="Violation probability and values"),
        rrb.Tabs(rrb.TimeSeriesView(origin="labels", name="Reward and cost"),
                 rrb.TimeSeriesView(origin="wrench", name="External force"),
                 rrb.TimeSeriesView(origin="gate", contents="gate/cost_spent", name="Cost spent")))
    # Following: what came last is shown, until a person stops the time or moves it.
    return rrb.Blueprint(rrb.Vertical(above, below, row_shares=[3, 2]),
                         rrb.TimePanel(state="collapsed", timeline="time", play_state="following"),
                         rrb.SelectionPanel(state="collapsed"), rrb.BlueprintPanel(state="collapsed"))
