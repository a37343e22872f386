"""Settings of SAS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from safe_policy_core.errors import ConfigurationError

BATCH, LENGTH = 64, 1
"""Windows of a training batch; their length is the base model's."""
EXPERIMENT_PRESETS: tuple[str, ...] = ()
"""It needs a base: the comparison of methods that learn from a dataset alone leaves it out."""

Selection = Literal["sas", "no_v", "maxmax", "random", "cost"]
AT_LEAST = {"trajectories": 1, "candidates": 1, "imagined_steps": 1, "energy_steps": 1, "evidence_draws": 1,
            "prompt_steps": 1, "prompts": 1, "units": 1, "latent": 1, "recorded": 0, "recorded_cost": 0, "realign": 0}
SHARES = ("return_spread", "recorded_quantile")
TRAINING = ("units", "latent", "learning_rate", "recorded", "recorded_cost", "recorded_quantile")
"""Settings that trained heads, and the steps kept with them, depend on; `prompt_steps` too where steps are kept."""


@dataclass(frozen=True)
class SasConfig:
    """Section 6 and Appendices B and C; what they leave out is this project's."""

    base: str = ""
    """Checkpoint of a dt, cdt or qpt. Its weights stay as they are; what acts does not need this folder any more."""

    trajectories: int = 5
    """N, courses imagined for condition U."""
    candidates: int = 5
    """M, courses imagined under the first prompt for condition V."""
    imagined_steps: int = 100
    """T. The paper imagines whole episodes; a start-up on an arm has no time for them."""
    return_spread: float = 0.0
    """By how much less the last of the first N courses asks for than the first, as a share of the largest return in
    the data. A base that learned from prompts is told by them alone how to behave: where the highest return is asked
    for recklessly, no course is imagined that avoids anything, unless some ask for less."""
    energy_steps: int = 3
    """Steps over which the occupancy of a pair is summed (C.2)."""
    discount: float = 0.99
    """gamma of the occupancy."""
    evidence_draws: int = 32
    """Draws of the latent over which a state's evidence bound is a mean. Of one, the choice of a course is mostly the
    noise of that draw: V_t looks at signs of differences. Of the same courses, drawn twice, the same was chosen by V_t
    in 16 of 60 starts with one draw and in 38 with 32 (CarCircle1); costs and failures hardly changed by it."""

    prompt_steps: int = 5
    """L, steps of a prompt (C.3)."""
    prompts: int = 1
    """Prompts, of as many runs of the algorithm, one after the other (C.4). They must leave room in the context."""
    keep_prompt: bool = True
    """The prompt stays in the context for the whole episode; else it leaves as the first steps of an episode do."""

    told: bool = True
    """Beside a prompt the base is told the return to go, as ever. False: a base that learned from prompts
    (`SequenceConfig.prompt_steps`) is told by the prompt alone, which does more and costs more of the reward."""

    recorded: int = 0
    """Rows of recorded episodes that are kept with the heads, so that prompts are recorded steps of theirs
    (`recorded.RecordedSteps`); 0: prompts are imagined, as in the paper. With it `selection` is what `realign` says, or
    "random"."""
    recorded_cost: float = 0.3
    """What an episode may cost for that, as a share of the target cost that the base was trained with: another one in
    an episode (`set_target_cost`) does not change what is shown."""
    recorded_quantile: float = 0.8
    """And the share of such episodes that return less than it: the higher, the more reward and cost."""
    realign: int = 0
    """0: steps of the episode that began nearest to where this one does, for all of it: what is in the scene decides.
    Else the recorded steps that are nearest to the present state, anew after so many control steps: it holds a policy
    that drifts to what those episodes did."""

    selection: Selection = "sas"
    """Algorithm 1; without its second loop (no_v); the highest peak (maxmax); any (random); the least imagined cost."""
    lyapunov: Literal["falling", "rising"] = "falling"
    """What V_t asks of the energy. Literally, with G = E_j - E_t, eq. 8 asks it to rise; the text wants it to fall.
    Measured, the sign does hardly anything (PointCircle1, one seed, 20 episodes, one draw of evidence: reward 0.64 and
    cost 5.8 rising, 0.66 and 3.3 falling)."""

    units: int = 128
    latent: int = 8
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        for name, least in AT_LEAST.items():
            if not (value := getattr(self, name)) >= least:
                raise ConfigurationError(f"{name}: expected at least {least}, got {value}")
        for name in SHARES:
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise ConfigurationError(f"{name}: expected a share from 0 to 1, got {value}")
        if not 0 < self.discount <= 1:
            raise ConfigurationError(f"discount: expected above 0 and at most 1, got {self.discount}")
        if not self.learning_rate > 0:
            raise ConfigurationError(f"learning_rate: expected a number above 0, got {self.learning_rate}")

    def require_room(self, length: int) -> None:
        """Raises `ConfigurationError` where the prompts leave no room for the present step in `length` steps (K)."""
        if not self.prompts * self.prompt_steps < length:
            raise ConfigurationError(f"prompt_steps: {self.prompts} prompts of {self.prompt_steps} do not fit into "
                                     f"the base's context of {length} steps beside the present one")
