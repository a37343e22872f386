"""Runs in OSRL's environment (.tools/osrl) and imports nothing of this project.

One JSON object a line. The first, on standard input, is the job; then this process asks on standard output:
{"reset": true} and {"action": [...]}, answered by an observation and a step, and ends with {"done": median
milliseconds of a training step}. What OSRL and the native code under it print goes to standard error.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator

import gymnasium
import h5py
import numpy as np
import torch

OUTPUT = os.fdopen(os.dup(1), "w")
"""The protocol's own descriptor."""
os.dup2(2, 1)  # not sys.stdout alone: libraries in C write to the descriptor
REWARD_SCALE = 0.1
"""OSRL's default for every method but BC."""
TRANSITIONS = ("observations", "next_observations", "actions", "rewards", "costs", "done")


def ask(request: dict) -> dict:
    """Sends one line and waits for the answer."""
    OUTPUT.write(json.dumps(request) + "\n")
    OUTPUT.flush()
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)  # nobody is interested any more
    return json.loads(line)


class RemoteEnv(gymnasium.Env):
    """The environment at the other end of the pipe. Rewards are scaled as OSRL's wrapper does."""

    def reset(self, **_: object) -> tuple[np.ndarray, dict]:
        return np.array(ask({"reset": True})["observation"], np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        answer = ask({"action": np.asarray(action, float).reshape(-1).tolist()})
        return (np.array(answer["observation"], np.float32), answer["reward"] * REWARD_SCALE,
                answer["terminated"], answer["truncated"], {"cost": answer["cost"]})


def load(path: str) -> dict[str, np.ndarray]:
    """A DSRL file as OSRL takes it, cut after the last whole episode."""
    with h5py.File(path) as file:
        data = {key: np.asarray(file[key], np.float32) for key in
                ("observations", "next_observations", "actions", "rewards", "costs", "terminals", "timeouts")}
    ends = np.flatnonzero((data["terminals"] > 0) | (data["timeouts"] > 0))
    return {key: value[:ends[-1] + 1] for key, value in data.items()}


def batches(arrays: list[np.ndarray], size: int) -> Iterator[list[torch.Tensor]]:
    """Uniform batches, as OSRL's loader draws them, without its Python loop over single steps."""
    while True:
        index = np.random.randint(0, len(arrays[0]), size)
        yield [torch.as_tensor(array[index]) for array in arrays]


def value_based(job: dict, data: dict[str, np.ndarray]) -> tuple[Callable[[], object], Callable[[], object]]:
    """(one training step, one episode) of CPQ, BCQ-Lag, BEAR-Lag or COptiDICE with OSRL's settings.

    With `job["equal_networks"]` BCQ-Lag and BEAR-Lag have two critics a signal, as the papers and this project,
    and not OSRL's four.
    """
    from osrl import algorithms
    from osrl.common.dataset import TransitionDataset

    transitions = TransitionDataset(data, reward_scale=REWARD_SCALE, state_init=True)
    proportion, observation_deviation, action_deviation = transitions.get_dataset_states()
    critics = 1 if job["equal_networks"] else 2
    shared = {"state_dim": data["observations"].shape[1], "action_dim": data["actions"].shape[1], "max_action": 1.0,
              "a_hidden_sizes": [job["units"]] * 2, "c_hidden_sizes": [job["units"]] * 2, "gamma": 0.99,
              "cost_limit": job["cost_limit"], "episode_len": job["horizon"]}
    vae, env = {"vae_hidden_sizes": 400, "sample_action_num": 10, "beta": 0.5, "tau": job["target_rate"]}, RemoteEnv()
    rates = {"actor_lr": 1e-3, "critic_lr": 1e-3, "vae_lr": 1e-3}
    scale = {"reward_scale": REWARD_SCALE, "device": "cpu"}
    if job["method"] == "cpq":
        trainer = algorithms.CPQTrainer(algorithms.CPQ(**shared, **vae, num_q=2, num_qc=2, qc_scalar=1.5), env,
                                        **rates | {"actor_lr": 1e-4}, alpha_lr=1e-4, **scale)
    elif job["method"] == "bcq_lag":
        trainer = algorithms.BCQLTrainer(
            algorithms.BCQL(**shared, **vae, phi=0.05, lmbda=0.75, num_q=critics, num_qc=critics), env, **rates,
            **scale)
    elif job["method"] == "bear_lag":
        trainer = algorithms.BEARLTrainer(
            algorithms.BEARL(**shared, **vae, lmbda=0.75, mmd_sigma=50, target_mmd_thresh=0.05, num_q=critics,
                             num_qc=critics, start_update_policy_step=0), env, **rates, alpha_lr=1e-3, **scale)
    else:
        trainer = algorithms.COptiDICETrainer(
            algorithms.COptiDICE(**shared, f_type="softchi", init_state_propotion=proportion,
                                 observations_std=observation_deviation, actions_std=action_deviation, alpha=0.5,
                                 cost_ub_epsilon=0.01, num_nu=2, num_chi=2), env, actor_lr=1e-4, critic_lr=1e-4,
            scalar_lr=1e-4, **scale)
    held = dict(transitions.dataset, rewards=data["rewards"] * REWARD_SCALE)
    if job["method"] == "coptidice":
        source = batches([held[key] for key in (*TRANSITIONS, "is_init")], job["batch"])
        return lambda: trainer.train_one_step(next(source)), lambda: trainer.evaluate(1)
    source = batches([held[key] for key in TRANSITIONS], job["batch"])
    return lambda: trainer.train_one_step(*next(source)), lambda: trainer.evaluate(1)


def bc_safe(job: dict, data: dict[str, np.ndarray]) -> tuple[Callable[[], object], Callable[[], object]]:
    """Behaviour cloning of the episodes within the limit."""
    from osrl.algorithms import BC, BCTrainer
    from osrl.common.dataset import process_bc_dataset

    process_bc_dataset(data, job["cost_limit"], 1.0, "safe")
    model = BC(data["observations"].shape[1], data["actions"].shape[1], 1.0, [job["units"]] * 2, job["horizon"])
    trainer = BCTrainer(model, RemoteEnv(), actor_lr=1e-3, bc_mode="safe", cost_limit=job["cost_limit"])
    source = batches([data["observations"], data["actions"]], job["batch"])
    return lambda: trainer.train_one_step(*next(source)), lambda: trainer.evaluate(1)


def cdt(job: dict, data: dict[str, np.ndarray]) -> tuple[Callable[[], object], Callable[[], object]]:
    """CDT with OSRL's settings; the bounds of its augmentation, which OSRL sets by task, follow the data's range.

    "cdt_action" has the actions of one batch of windows, without choosing any, in the place of a training step.
    """
    from osrl.algorithms import CDT, CDTTrainer
    from osrl.common.dataset import SequenceDataset

    action_dim = data["actions"].shape[1]
    low, high = job["return_range"]
    sequences = SequenceDataset(
        data, seq_len=10, reward_scale=REWARD_SCALE, cost_scale=1.0, deg=4, max_rew_decrease=(high - low) / 4,
        augment_percent=0.2, max_reward=high + (high - low) / 10, min_reward=0.0, cost_sample=True)
    loader = iter(torch.utils.data.DataLoader(sequences, batch_size=job["batch"]))
    model = CDT(data["observations"].shape[1], action_dim, 1.0, seq_len=10, episode_len=job["horizon"],
                embedding_dim=128, num_layers=3, num_heads=8, attention_dropout=0.1, residual_dropout=0.1,
                embedding_dropout=0.1, time_emb=True, use_rew=True, use_cost=True, cost_transform=True,
                stochastic=True, init_temperature=0.1, target_entropy=-action_dim)
    trainer = CDTTrainer(model, RemoteEnv(), learning_rate=1e-4, weight_decay=1e-4, clip_grad=0.25,
                         lr_warmup_steps=500, reward_scale=REWARD_SCALE, cost_scale=1.0, loss_cost_weight=0.02)

    def step() -> None:
        states, actions, returns, costs_to_go, times, mask, episode_cost, costs = next(loader)
        trainer.train_one_step(states, actions, returns.float(), costs_to_go.float(), times, mask,
                               episode_cost.float(), costs)

    if job["method"] == "cdt_action":
        states, actions, returns, costs_to_go, times, mask, episode_cost, _ = next(loader)
        window = (states, actions, returns.float(), costs_to_go.float(), times, ~mask.to(torch.bool),
                  episode_cost.float())
        model.eval()
        return torch.no_grad()(lambda: model(*window)), lambda: None
    return step, lambda: trainer.evaluate(1, job["target_return"] * REWARD_SCALE, job["cost_limit"])


def main() -> None:
    job = json.loads(sys.stdin.readline())
    random.seed(job["seed"])
    np.random.seed(job["seed"])
    torch.manual_seed(job["seed"])
    torch.set_num_threads(job["threads"])
    make = {"bc_safe": bc_safe, "cdt": cdt, "cdt_action": cdt}.get(job["method"], value_based)
    step, episode = make(job, load(job["file"]))
    durations = []
    for _ in range(job["steps"]):
        begin = time.perf_counter()
        step()
        durations.append(time.perf_counter() - begin)
    for _ in range(job["episodes"]):
        episode()
    OUTPUT.write(json.dumps({"done": 1e3 * float(np.median(durations))}) + "\n")
    OUTPUT.flush()


if __name__ == "__main__":
    main()
