"""What was written before: the gate's limits, and the simulation replay of the policy."""

from __future__ import annotations

import importlib
from pathlib import Path

from robot_bringup.preflight.check import Check, green, red


def limits(path: Path) -> Check:
    """path: the gate's parameter file."""
    import yaml

    name = "limits file"
    remedy = "write every limit for your table into it; robot_bringup/config/safety_gate.yaml is an example"
    try:
        content = yaml.safe_load(path.read_text())
        values = content["safety_gate"]["ros__parameters"]
        config = importlib.import_module("safe_policy_core.safety.gate_config").GateConfig.from_mapping(values)
    except (OSError, yaml.YAMLError) as error:
        return red(name, f"{path}: {' '.join(str(error).split())}", remedy)
    except (KeyError, TypeError):
        return red(name, f"{path}: no parameters of safety_gate (safety_gate: ros__parameters: ...)", remedy)
    except importlib.import_module("safe_policy_core.errors").UserError as error:
        return red(name, f"{path.name}: {error}", remedy)
    low, high = config.limits.workspace_low, config.limits.workspace_high
    sides = " x ".join(f"{(b - a) * 100:.0f}" for a, b in zip(low, high, strict=True))
    return green(name, f"{path.name} is complete; box of {sides} cm, {config.limits.max_translation_speed:g} m/s")


def replay(checkpoint: Path, task: str) -> Check:
    """Whether exactly these weights have passed in the simulator."""
    name = "simulation replay"
    report = importlib.import_module("safe_policy_core.replay_report")
    remedy = f"safe-policy replay --policy {checkpoint} --task {task} --episodes {report.MIN_EPISODES}"
    try:
        problem = report.problem(checkpoint, task)
        row = report.read(checkpoint)["tasks"].get(task) if not problem else None
    except importlib.import_module("safe_policy_core.errors").UserError as error:
        return red(name, str(error), f"name a checkpoint folder; then `{remedy}`")
    if row is None:
        return red(name, problem, f"`{remedy}`; weights that do not pass have to be trained further")
    return green(name, f"{row['episodes']} episodes of {task}: success {row['success_rate']:.0%}, "
                       f"violations {row['violation_rate']:.0%}")
