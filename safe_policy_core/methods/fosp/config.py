"""FOSP's settings. The defaults are the preset `small`; `full` is the paper's Table 4, `tabletop` for SafeReach."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from safe_policy_core.data.virtual_obstacles import VirtualObstacles
from safe_policy_core.methods.fosp.reach_avoid import ReachAvoidConfig
from safe_policy_core.vision import TableMapConfig, ToolViewConfig
from safe_policy_core.world_model import WorldModelConfig


@dataclass(frozen=True)
class FospConfig:
    """Trains on two CPU cores by default; `FospConfig.full()` is the paper's Table 4."""

    world_model: WorldModelConfig = field(default_factory=WorldModelConfig)
    tool_view: ToolViewConfig = field(default_factory=ToolViewConfig)
    """The picture around the tool beside the world model's state; on when the camera's projection is known."""
    table_map: TableMapConfig = field(default_factory=TableMapConfig)
    """Where the tool would touch what, and acting by it where the policy's own step is worse; off by default."""
    reach_avoid: ReachAvoidConfig = field(default_factory=ReachAvoidConfig)
    """How the map is acted on."""
    virtual_obstacles: VirtualObstacles = field(default_factory=VirtualObstacles)
    """Obstacles added to recorded episodes, offline and online; off by default."""
    units: int = 192
    """Hidden units of actor, critics, values and reachability."""
    layers: int = 2
    """Hidden layers of the same."""

    horizon: int = 5
    """Imagined steps H of eq. 6."""
    imagination_starts: int = 128
    """States of a batch from which rollouts start, drawn anew at each step; 0 takes all."""
    discount: float = 0.97
    """Gamma. Table 4's 0.997 is for episodes of 1000 steps; at 0.97 a step is worth 3% in an episode of 80."""
    cost_discount: float | None = None
    """Gamma of the cost's Q and V; None is `discount`, as in the paper. Costs further away than a detour takes are
    the same for all actions, and their noise hides what an action itself will cost."""
    reward_lambda: float = 0.95
    cost_lambda: float = 0.95
    recorded_lambda: float = 0.0
    """Lambda along recorded windows. 0 is eq. 10: one step, and V behind it. With more, a Q of recorded actions knows
    what came of them, and takes what the recorded behaviour did next for what comes."""
    expectile: float = 0.8
    """Kappa of eq. 7: weight of V's error where Q > V."""
    cost_direction: Literal["pessimistic", "optimistic"] = "pessimistic"
    """"pessimistic" uses kappa for the cost value too (the paper: "the same way"), which leans to the worst
    recorded action; "optimistic" uses 1 - kappa, which leans to the safest (FISOR)."""
    two_hot_critics: bool = False
    """Categorical symlog critics with cross entropy (DreamerV3) instead of squared errors (eq. 9, 10)."""
    slow_rate: float = 0.02
    """Rate at which slow copies of critics and reachability follow."""
    slow_scale: float = 1.0
    """Weight of the critics' pull towards their slow copies."""

    reward_temperature: float = 10.0
    """Beta 1 of eq. 19 and 23."""
    cost_temperature: float = 10.0
    """Beta 2 of eq. 19 and 23."""
    largest_weight: float = 100.0
    """Both exponentials of eq. 19 are clipped to it."""
    weight_form: Literal["sum", "product"] = "product"
    """"sum" is eq. 19: u exp(beta1 A^r) + (1 - u) exp(-beta2 A^c). There a fast way through an obstacle keeps a
    large weight by its reward alone unless u is nearly 0. "product" is exp(u beta1 A^r - (1 - u) beta2 A^c), the
    offline counterpart of eq. 23, in which neither outvotes the other."""
    advantage_scale: Literal["return", "advantage"] = "advantage"
    """By whose percentile range advantages are divided. "return" (at least 1) is the paper's: where returns lie in
    [0, 1] it leaves every weight at 1 (seen: 0.99 on average), and the actor imitates safe and unsafe alike."""
    entropy: float = 3e-4
    reachability_discount: float = 0.99
    cost_limit: float = 0.0
    initial_multiplier: float = 0.01
    initial_penalty: float = 1e-6
    penalty_growth: float = 5e-9

    expansion_temperature: float = 0.1
    """Alpha of eq. 21: probabilities are the softmax of Q~ / alpha. The paper prints 10, with which values in
    [-1, 1] give a nearly even choice; PEX, from which it is taken, uses 10 as the inverse temperature."""
    new_actor: Literal["offline", "fresh"] = "offline"
    """What the second policy of fine-tuning starts from."""
    online_imitation: float = 0.0
    """Weight of the offline actor loss (eq. 20) beside the online one (eq. 23) in fine-tuning. The paper: 0."""
    largest_return: float | None = None
    """Q^* of eq. 22; None is the paper's sum of gamma^t r_max with the largest reward seen. Where a reward comes once,
    at the end, that is a sum over steps that never have one (30 for a return of 1), and the choice becomes even."""
    largest_cost_return: float | None = None
    """C^* of eq. 22; None is the sum of gamma^t c_max with the largest cost seen."""
    episode_length: int = 80
    """T of the sums in eq. 22 [steps]."""

    actor_learning_rate: float = 3e-4
    critic_learning_rate: float = 3e-4
    reachability_learning_rate: float = 3e-4
    gradient_clip: float = 100.0

    in_sample: bool = True
    """Off: V is the mean over the policy's own imagined actions (ablation of 5.3)."""
    expansion: bool = True
    """Off: fine-tuning goes on with the one actor."""
    reachability: bool = True
    """Off: u is 1 everywhere, so that only the penalty knows of costs."""
    augmented_lagrangian: bool = True
    """Off: the penalty is the violation probability of imagined states (Fisac et al. 2019) instead of Phi(V^c)."""

    @classmethod
    def tabletop(cls) -> FospConfig:
        """For an arm over a table seen by a calibrated camera (SafeReach), on one CPU core.

        The view around the tool carries the obstacles, so a small latent state is enough; virtual obstacles show
        what 200 trajectories do not, and the map of the table tells ways around them. Needs episodes with
        `calibration.projection` in their metadata.
        """
        world_model = WorldModelConfig(latents=16, deter=64, units=96, depth=8, decoded_fraction=0.125)
        return cls(world_model=world_model, virtual_obstacles=VirtualObstacles(copies=4), units=128,
                   table_map=TableMapConfig(cells=50), imagination_starts=48,
                   largest_return=1.0, largest_cost_return=5.0,
                   cost_direction="optimistic", reward_temperature=4.0, cost_temperature=4.0,
                   actor_learning_rate=1e-3, critic_learning_rate=1e-3, reachability_learning_rate=1e-3)

    @classmethod
    def full(cls) -> FospConfig:
        """The paper's Table 4."""
        return cls(world_model=WorldModelConfig.full(), units=512, layers=5, horizon=15, imagination_starts=0,
                   discount=0.997, two_hot_critics=True, actor_learning_rate=3e-5, critic_learning_rate=3e-5,
                   reachability_learning_rate=5e-5, episode_length=1000)


PRESETS = {"small": FospConfig, "tabletop": FospConfig.tabletop, "full": FospConfig.full}
"""Name -> function that makes the configuration."""
