"""The panels that Foxglove shows; `foxglove_layout.json` is this as a file to import."""

from __future__ import annotations

from pathlib import Path

import foxglove.layouts as fl

from data_collection.watch import view

LAYOUT_FILE = Path(__file__).with_name("foxglove_layout.json")
LIMITS = "/watch/limits"
"""Topic that `FoxgloveView` adds: the workspace box as a foxglove.SceneUpdate."""
BASE_FRAME = "fr3_link0"
_AXES = ("x", "y", "z", "rx", "ry", "rz")


def _plot(title: str, series: dict[str, str]) -> fl.PlotPanel:
    paths = [fl.PlotSeries(label=label, value=path, timestamp_method="receiveTime") for label, path in series.items()]
    return fl.PlotPanel(title=title, config=fl.PlotConfig(paths=paths, show_legend=True, is_synced=True))


def _actions(field: str) -> dict[str, str]:
    return {axis: f"{view.STEP}.{field}[{index}]" for index, axis in enumerate(_AXES)}


def layout() -> fl.Layout:
    """Camera, arm with target and limits, episode and gate above; actions, estimates and labels below."""
    scene = fl.ThreeDeeConfig(follow_tf=BASE_FRAME, topics={
        view.TOOL: fl.BaseRendererPoseTopicSettings(visible=True, type="axis", axis_scale=0.05),
        view.TARGET: fl.BaseRendererPoseTopicSettings(visible=True, type="axis", axis_scale=0.08),
        LIMITS: fl.BaseRendererSceneUpdateTopicSettings(visible=True, show_outlines=True)})
    gate = fl.StateTransitionsConfig(is_synced=True, paths=[
        fl.StateTransitionsSeries(label=label, value=path, timestamp_method="receiveTime") for label, path in (
            ("gate: 0 disarmed, 1 active, 2 hold, 3 fault", f"{view.GATE}.state"), ("source", f"{view.GATE}.source"),
            ("held by", f"{view.GATE}.hold"), ("fault", f"{view.GATE}.reason"),
            ("episode: 1 resetting, 2 running, 3 ended", f"{view.STATE}.phase"))])
    above = fl.SplitContainer(direction="row", items=[
        fl.SplitItem(proportion=2, content=fl.ImagePanel(title="Camera", config=fl.ImageConfig(
            image_mode=fl.ImageModeConfig(image_topic=view.CAMERA)))),
        fl.SplitItem(proportion=3, content=fl.ThreeDeePanel(title="Arm, target and limits", config=scene)),
        fl.SplitItem(proportion=2, content=fl.SplitContainer(direction="column", items=[
            fl.SplitItem(content=fl.RawMessagesPanel(title="Episode clock", config=fl.RawMessagesConfig(
                topic_path=f"{view.STEP}.index"))),
            fl.SplitItem(proportion=3, content=fl.StateTransitionsPanel(title="Gate decisions", config=gate))]))])
    below = fl.SplitContainer(direction="row", items=[
        fl.SplitItem(content=_plot("Action, executed", _actions("executed_action"))),
        fl.SplitItem(content=_plot("Action, requested", _actions("requested_action"))),
        fl.SplitItem(content=_plot("Violation probability and values", {
            name.replace("_", " "): f"{view.STEP}.{name}" for name in ("violation_probability", "cost_value",
                                                                       "value")})),
        fl.SplitItem(content=_plot("Reward and cost", {
            "reward": f"{view.STEP}.reward", "cost": f"{view.STEP}.cost",
            "cost spent": f"{view.GATE}.cost_spent"}))])
    return fl.Layout(content=fl.SplitContainer(direction="column", items=[
        fl.SplitItem(proportion=3, content=above), fl.SplitItem(proportion=2, content=below)]))


def main() -> None:
    """`python -m data_collection.watch.foxglove_layout` writes the file anew."""
    LAYOUT_FILE.write_text(layout().to_json() + "\n")


if __name__ == "__main__":
    main()
