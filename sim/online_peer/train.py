"""Runs inside .tools/omnisafe: trains by omnisafe and writes the actor's weights without pickle."""

from __future__ import annotations

import sys
from pathlib import Path

from sim.safety_gymnasium.repaired_import import import_safety_gymnasium

import_safety_gymnasium()

import omnisafe  # noqa: E402 (only after the repaired import)
from safetensors.numpy import save_file  # noqa: E402
from torch import nn  # noqa: E402


def train(algorithm: str, env_id: str, steps: int, epoch: int, cost_limit: float, seed: int, out: Path) -> None:
    """`epoch`: steps between updates. Writes `out` (safetensors): mean, deviation, weight0, bias0, weight1, ..."""
    limit = {"lagrange_cfgs": {"cost_limit": cost_limit}} if algorithm == "PPOLag" else {}
    algorithm_settings: dict[str, object] = {"steps_per_epoch": epoch}
    if algorithm == "CPO":
        algorithm_settings["cost_limit"] = cost_limit
    agent = omnisafe.Agent(algorithm, env_id, custom_cfgs={
        "seed": seed, "train_cfgs": {"total_steps": steps, "vector_env_nums": 1, "torch_threads": 1},
        "algo_cfgs": algorithm_settings, "logger_cfgs": {"use_wandb": False, "use_tensorboard": False,
                                                         "log_dir": str(out.parent / "omnisafe")}} | limit)
    agent.learn()
    normaliser = agent.agent._env.save()["obs_normalizer"]
    tensors = {"mean": normaliser.mean, "deviation": normaliser.std}
    layers = [module for module in agent.agent._actor_critic.actor.mean if isinstance(module, nn.Linear)]
    for index, layer in enumerate(layers):
        tensors |= {f"weight{index}": layer.weight, f"bias{index}": layer.bias}
    save_file({name: tensor.detach().cpu().numpy().copy() for name, tensor in tensors.items()}, out)


if __name__ == "__main__":
    name, task, total, between, limit, seed, path = sys.argv[1:]
    train(name, task, int(total), int(between), float(limit), int(seed), Path(path))
