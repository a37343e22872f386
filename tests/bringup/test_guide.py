"""The guide's commands exist and take the arguments that are written there. `make guide` runs them."""

import importlib
import shlex

import pytest
import tyro

from robot_bringup.environment import ROOT
from robot_bringup.guide import BEFORE, GUIDE, Step, steps
from safe_policy_core.cli import COMMANDS, without_keep

STEPS = steps(GUIDE.read_text())


def test_the_guide_goes_from_the_arm_to_the_report() -> None:
    run = [step.command.split()[1] for step in STEPS if step.kind == "" and step.command.startswith("safe-policy")]
    wanted = ["collect", "dataset", "review", "pretrain", "evaluate", "replay", "finetune", "report"]
    assert [name for index, name in enumerate(wanted) if name in run] == wanted
    assert {step.command for step in STEPS} >= set(BEFORE)
    assert [step.kind for step in STEPS if step.kind in ("terminal", "stop")] == ["terminal", "stop"] * 2
    assert sum(step.kind == "robot" for step in STEPS) >= 5


@pytest.mark.parametrize("step", [step for step in STEPS if step.command.startswith("safe-policy")],
                         ids=lambda step: step.command)
def test_every_command_takes_its_arguments(step: Step) -> None:
    (_, name, *arguments), _ = without_keep(shlex.split(step.command))
    module, command = COMMANDS[name][0].split(":")
    assert tyro.cli(getattr(importlib.import_module(module), command), args=arguments)


@pytest.mark.parametrize("step", [step for step in STEPS if step.command.startswith("python")],
                         ids=lambda step: step.command)
def test_every_launch_file_takes_its_arguments(step: Step) -> None:
    words = shlex.split(step.command)
    assert words[:3] == ["python", "-m", "robot_bringup"]
    text = (ROOT / "robot_bringup" / "launch" / f"{words[3]}.launch.yaml").read_text()
    for argument in words[4:]:
        assert f"name: {argument.partition(':=')[0]}\n" in text


def test_an_unknown_kind_of_block_is_refused() -> None:
    with pytest.raises(ValueError, match="kind 'maybe'"):
        steps("```sh maybe\nls\n```\n")
