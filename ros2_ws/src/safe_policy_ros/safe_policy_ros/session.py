"""Episodes one after the other through a running graph, and what to do when one of them fails."""

from __future__ import annotations

import logging
import math
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_collection.labels import ContactWatch
from safe_policy_core.errors import RobotUnavailableError
from safe_policy_ros.client import GraphClient, GraphError
from safe_policy_ros.console import OperatorConsole

log = logging.getLogger(__name__)

ATTEMPTS = 3
"""How often an episode that did not come about is tried on a simulated arm."""
PAUSE = 1.0
"""[s] Between two attempts."""


class Session:
    """Runs episodes. `arm` is the operator's word that the safety gate may be armed.

    On a simulated arm that word holds for the whole session: after a fault the gate is armed again
    between episodes, and an episode that could not run or left no recording is tried again. On a real arm
    a fault ends the session, because a person has to look at the arm first. An episode that did run is
    never repeated, whatever became of it: its steps and costs count. The arm's external force says when
    there may be a contact: a word to the person, who labels it or does not.
    """

    def __init__(self, client: GraphClient, arm: bool) -> None:
        self._client, self._may_arm = client, arm
        self._simulated = client.simulated
        self.faults: list[str] = []
        self.console = OperatorConsole.of_this_process(lambda kind, level: client.label(kind, level, "console"))
        if arm:
            client.arm()

    def episode(self, task: str, seed: int, source: str, directory: Path, operator: str,
                budget: float = math.inf, deterministic: bool = False) -> dict[str, Any]:
        """One recorded episode as a row. Raises `GraphError` or `RobotUnavailableError` when there is none.

        deterministic: the policy's most likely actions, not draws. budget: cost at which the episode is ended, not only
        the session after it. So does the gate's own budget, with which it holds a policy.
        """
        attempts = ATTEMPTS if self._simulated and self._may_arm else 1
        while True:
            attempts -= 1
            try:
                self._rearm()
                row = self._run(task, seed, source, directory, operator, budget, deterministic)
            except (GraphError, RobotUnavailableError) as error:
                self.faults.append(str(error))
                if not attempts:
                    raise
                log.warning("episode %d did not come about (%s); %d more attempts", seed, error, attempts)
                time.sleep(PAUSE)
                continue
            if row["message"]:
                self.faults.append(row["message"])
            return row

    def close(self) -> None:
        self.console.close()

    def _rearm(self) -> None:
        gate = self._client.gate()
        if self._may_arm and self._simulated and gate["state"] in ("DISARMED", "FAULT"):
            log.warning("the safety gate is in %s (%s); the simulated arm is armed again", gate["state"],
                        gate["reason"] or "no reason")
            self._client.arm()

    def _run(self, task: str, seed: int, source: str, directory: Path, operator: str, budget: float,
             deterministic: bool) -> dict[str, Any]:
        steps: list[dict[str, Any]] = []
        with tqdm(total=80, desc=f"episode {seed}", unit="step", leave=False, disable=None) as bar:
            def hear(step: dict[str, Any]) -> None:
                steps.append(step)
                bar.update()

            contacts = ContactWatch()

            def over() -> bool:
                self.console.poll(time.monotonic())
                if (force := self._client.force()) is not None and (strength := contacts.look(force)) > 0:
                    tqdm.write(f"\acontact? {strength:.1f} N at the tool; 2 labels cost", file=sys.stderr)
                spent = source == "policy" and self._client.cost_budget_spent()
                return bool(spent) or sum(step["cost"] for step in steps) > budget

            result = self._client.run_episode(task, seed, source, directory, operator, deterministic, hear,
                                              stop_when=over)
        if not result["path"]:
            raise GraphError(f"episode of seed {seed} was not recorded: {result['message']}")
        chosen = [step["chosen_policy"] for step in steps]
        # The share of the new policy means something only where two policies take turns.
        share = chosen.count("online") / len(chosen) if {"online", "offline", "map"} & set(chosen) else None
        return {"task": task, "seed": seed, **result, "online_share": share}
