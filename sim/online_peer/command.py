"""`safe-policy peer`."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from safe_policy_core.commands import require_positive
from safe_policy_core.environments import make_env
from safe_policy_core.errors import ConfigurationError
from safe_policy_core.evaluation import rollout, summarize
from sim.online_peer.policy import PeerPolicy

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".tools" / "omnisafe" / "bin" / "python"
SETUP = "sim/online_peer/setup.sh"
ALGORITHMS = {"ppo_lag": "PPOLag", "cpo": "CPO"}
WEIGHTS = "actor.safetensors"


@dataclass
class Peer:
    """Trains PPO-Lagrangian or CPO by omnisafe, online in a Safety-Gymnasium task, and tests what it learned."""

    method: tyro.conf.Positional[Literal["ppo_lag", "cpo"]]
    task: tyro.conf.Positional[str]
    """Safety-Gymnasium id, SafetyPointGoal1-v0 for instance."""

    out: Path
    """Folder of the run: the weights (actor.safetensors) and omnisafe's own log. Weights that are there are only
    tested."""

    steps: int = 1_000_000
    """Steps in the environment."""

    epoch: int = 20_000
    """Steps between two updates."""

    cost_limit: float = 10.0
    """Cost that an episode may have."""

    episodes: int = 20
    """Test episodes, with seeds from 0 on."""

    seed: int = 0

    def run(self) -> dict[str, Any]:
        """Trains and tests. Returns the summary. Raises `ConfigurationError` without omnisafe, or when it fails."""
        require_positive(steps=self.steps, epoch=self.epoch, episodes=self.episodes)
        if self.steps < self.epoch:
            raise ConfigurationError(f"steps: expected at least one epoch ({self.epoch}), got {self.steps}")
        env = make_env(self.task)
        try:
            weights = self.out / WEIGHTS
            if not weights.exists():
                self._train(weights)
            policy = PeerPolicy(weights, env.specs)
            results = [rollout(env, policy, seed) for seed in range(self.episodes)]
        finally:
            env.close()
        return {"method": self.method, "task": self.task, "weights": str(weights), "cost_limit": self.cost_limit,
                "reward_deviation": float(np.std([result.reward for result in results])),
                **summarize(results).to_json()}

    def _train(self, weights: Path) -> None:
        if not PYTHON.exists():
            raise ConfigurationError(f"peer: omnisafe is not installed here; run {SETUP}")
        self.out.mkdir(parents=True, exist_ok=True)
        words = [ALGORITHMS[self.method], self.task.replace("Gymnasium-", "-"), self.steps, self.epoch,
                 self.cost_limit, self.seed, weights.resolve()]
        done = subprocess.run([PYTHON, "-m", "sim.online_peer.train", *map(str, words)], cwd=ROOT, check=False,
                              env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)})
        if done.returncode or not weights.exists():
            raise ConfigurationError(f"peer: omnisafe ended with code {done.returncode}; its messages are above")
