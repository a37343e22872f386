"""FOSP (Cao et al. 2024, "Fine-tuning Offline Safe Policy through World Models"): Algorithm 1.

Deviations from the paper's text, each with the equation it replaces:
- Eq. 8: the bootstrap is V of the next state and stops where the episode terminates.
- Eq. 9, 10: squared errors are minimised (the minus signs are slips); with `two_hot_critics`
  cross entropies of two-hot targets take their place, as in DreamerV3. Each Q is also drawn to its slow copy.
- Eq. 7: trained on recorded and on imagined steps; Q is the pessimistic slow one of two networks.
- Eq. 19: advantages are divided by their own percentile range (the paper: by that of returns, at least 1), and
  the two exponentials are multiplied, not added (see `FospConfig.advantage_scale` and `weight_form`).
- Eq. 20: the penalty is evaluated on imagined states reached through the actor's own actions.
  At recorded states, as printed, it is constant in the actor.
- Eq. 21: alpha defaults to 0.1 (see `FospConfig.expansion_temperature`).
- Eq. 23: the weight acts on the new actor's own imagined actions (policy gradient).
- Eq. 21: with a `table_map` the step over the table is the map's wherever it knows a better one (`reach_avoid`).
- Where the camera is calibrated, every head also sees the picture around the tool (`vision.ToolView`), and
  recorded episodes are joined by copies with added obstacles (`data.virtual_obstacles`).
- Eq. 30: p is the probability of a violation and u of section 4.2 is 1 - p.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from safe_policy_core.errors import DatasetError
from safe_policy_core.interfaces import Specs
from safe_policy_core.methods.fosp.actor_loss import imitation_loss, penalty_loss, policy_gradient_loss
from safe_policy_core.methods.fosp.config import FospConfig
from safe_policy_core.methods.fosp.model import FospModel
from safe_policy_core.methods.fosp.pictures import imagined_frames, reconstructed_frames
from safe_policy_core.methods.fosp.policy import FospPolicy
from safe_policy_core.methods.fosp.storage import export_model, load_learner_state, load_model, save_learner_state
from safe_policy_core.networks.actor import GaussianActor
from safe_policy_core.networks.optimiser import Optimiser
from safe_policy_core.vision import Surroundings
from safe_policy_core.vision.table_map import CONTACT_PLACE, UNDISTURBED
from safe_policy_core.vision.tool_view import SCENE
from safe_policy_core.world_model import Batch, ImaginedSteps, LatentState, RealSteps, imagine, real_steps, to_batch


class FospLearner:
    """Trains a `FospModel`. Offline until `start_fine_tuning`, online after it.

    The same specs, config, seed and batches give the same numbers on a CPU.
    """

    config_class = FospConfig
    method = "fosp"

    def __init__(self, specs: Specs, config: FospConfig | None = None, seed: int = 0,
                 device: torch.device | str = "cpu") -> None:
        self.specs, self.config, self.seed = specs, config or FospConfig(), seed
        self.device = torch.device(device)
        self.step, self.online = 0, False
        self.generator = torch.Generator(self.device)
        self.generator.manual_seed(seed)
        # Initial weights come from the seed alone, whatever the process drew before.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = FospModel(specs, self.config).to(self.device)
        self.optimisers = self._make_optimisers()

    def _make_optimisers(self) -> dict[str, Optimiser]:
        config, model = self.config, self.model
        return {
            "world_model": Optimiser(model.world_model, config.world_model.learning_rate,
                                     config.world_model.gradient_clip),
            "actor": self._actor_optimiser(),
            "reward": Optimiser(model.reward, config.critic_learning_rate, config.gradient_clip),
            "cost": Optimiser(model.cost, config.critic_learning_rate, config.gradient_clip),
            "reachability": Optimiser(model.reachability, config.reachability_learning_rate, config.gradient_clip),
        } | ({"tool_view": Optimiser(model.tool_view, config.world_model.learning_rate, config.gradient_clip)}
             if model.tool_view is not None else {}) \
            | ({"table_map": Optimiser(model.table_map, config.critic_learning_rate, config.gradient_clip)}
               if model.table_map is not None else {})

    def _actor_optimiser(self) -> Optimiser:
        return Optimiser(self.model.actor, self.config.actor_learning_rate, self.config.gradient_clip)

    def update(self, batch: Mapping[str, np.ndarray]) -> dict[str, float]:
        """One step of every part, in the order of Algorithm 1. Returns metrics by name.

        batch: the fields of `EpisodeStore.sample`. Raises `DatasetError` for a missing field.
        """
        model = self.model
        tensors = self._tensors(batch)
        model.world_model.encoder.update_statistics(tensors)
        around = context = view = None
        if model.tool_view is not None:
            # Every part's loss shapes the view; their gradients meet at this leaf and go through the network once.
            around = model.tool_view.surroundings(tensors)
            view = model.tool_view(around)
            context = view.detach().unflatten(0, tensors["is_first"].shape).requires_grad_()
        loss, states, metrics = model.world_model.loss(tensors, self.generator, context)
        norms = {"model": self.optimisers["world_model"].step(loss, context)}
        model.largest_reward.copy_(torch.maximum(model.largest_reward, tensors["reward"].max()))
        model.largest_cost.copy_(torch.maximum(model.largest_cost, tensors["cost"].max()))

        states = states.detach().with_context(context)
        features = states.features
        real, has_next = real_steps(features, tensors)
        rollout_features, imagined = self._imagine(states.detach(), tensors["is_terminal"], around)

        advantages = {}
        for estimator in (model.reward, model.cost):
            loss, advantages[estimator.kind], more = estimator.loss(real, imagined)
            norms[estimator.kind] = self.optimisers[estimator.kind].step(loss, context)
            estimator.critic.update_targets()
            metrics |= more

        loss, constraint, more = self._actor_loss(real, imagined, rollout_features, advantages)
        metrics |= more
        norms["actor"] = self.optimisers["actor"].step(loss, context)
        model.lagrangian.update(constraint)

        loss = model.reachability.loss(features, tensors["cost"], tensors["is_terminal"], has_next)
        norms["reachability"] = self.optimisers["reachability"].step(loss, context)
        model.reachability.update_slow()
        if view is not None and context is not None:
            norms["tool_view"] = self.optimisers["tool_view"].step((view * context.grad.flatten(0, 1)).sum())
        metrics["reachability/loss"] = loss
        if model.table_map is not None:
            loss, more = model.table_map.loss(tensors)
            norms["table_map"] = self.optimisers["table_map"].step(loss)
            model.table_map.update_slow()
            metrics |= more
        self.step += 1
        numbers = torch.stack([value.detach().float().mean() for value in metrics.values()]).tolist()
        return dict(zip(metrics, numbers, strict=True)) | {f"norm/{name}": norm for name, norm in norms.items()}

    def _tensors(self, batch: Mapping[str, np.ndarray]) -> Batch:
        tensors = to_batch(batch, self.specs, self.device)
        needed = ((SCENE,) if self.model.tool_view is not None else ()) \
            + ((UNDISTURBED,) if self.model.table_map is not None else ())
        for name in needed:
            if name not in batch:
                raise DatasetError(f"batch: missing {name}, which the tool view or the table map needs")
            tensors[name] = torch.from_numpy(np.ascontiguousarray(batch[name])).to(self.device)
        if CONTACT_PLACE in batch:
            tensors[CONTACT_PLACE] = torch.from_numpy(batch[CONTACT_PLACE]).to(self.device)
        return tensors

    def _imagine(self, states: LatentState, is_terminal: Tensor, around: Surroundings | None = None
                 ) -> tuple[Tensor, ImaginedSteps]:
        """Eq. 6 from a share of the posterior states: features with their graph, and everything detached."""
        model, config = self.model, self.config
        total = is_terminal.numel()
        count = min(config.imagination_starts or total, total)
        index = torch.randperm(total, generator=self.generator, device=self.device)[:count]
        start = states.select(index)
        normal = torch.randn((config.horizon, count, model.actor.action_dim), generator=self.generator,
                             device=self.device)
        return imagine(
            model.world_model, start, is_terminal.flatten()[index],
            lambda features, step: model.actor(features).sample(normal[step]), config.horizon, self.generator,
            None if around is None else model.moving_context(around.select(index)))

    def _actor_loss(self, real: RealSteps, imagined: ImaginedSteps, rollout_features: Tensor,
                    advantages: Mapping[Any, Any]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Loss, constraint, metrics; eq. 20 offline, eq. 23 (and a share of eq. 20) online, each with the penalty."""
        model, metrics = self.model, dict[str, Tensor]()
        penalty, constraint = penalty_loss(model, rollout_features, imagined)
        loss = penalty
        imitation = self.config.online_imitation if self.online else 1.0
        if imitation > 0:
            term, metrics = imitation_loss(model, real, advantages["reward"], advantages["cost"])
            loss = loss + imitation * term
        if self.online:
            term, more = policy_gradient_loss(model, imagined, advantages["reward"], advantages["cost"])
            loss, metrics = loss + term, metrics | more
        return loss, constraint, metrics | {"actor/penalty": penalty, "actor/loss": loss,
                                            "actor/constraint": constraint,
                                            "lagrangian/multiplier": model.lagrangian.multiplier}

    def start_fine_tuning(self) -> None:
        """Turns online (Algorithm 1, line 12). With expansion the actor is copied and frozen.

        The new actor starts as `config.new_actor` says and has an optimiser of its own. A second call does nothing.
        """
        if self.online:
            return
        self.online = True
        if self.config.expansion:
            model, fresh = self.model, None
            if self.config.new_actor == "fresh":
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(self.seed + 1)
                    fresh = GaussianActor(model.world_model.feature_size, model.actor.action_dim, self.config.units,
                                          self.config.layers).to(self.device)
            model.expand(fresh)
        self.optimisers["actor"] = self._actor_optimiser()

    def policy(self) -> FospPolicy:
        """A policy that shares the weights in training; its recurrent state and its draws are its own."""
        return FospPolicy(self.model, self.specs, self.device)

    def reconstruct(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Decoded posterior states of a batch: {name: (B, L, ...)}, images uint8, vectors in their units."""
        return reconstructed_frames(self.model, self._tensors(batch))

    def imagine_video(self, batch: Mapping[str, np.ndarray], context: int = 5, own_actions: bool = False
                      ) -> dict[str, np.ndarray]:
        """Open-loop prediction {name: (B, L, ...)}: the first `context` rows are reconstructions, the rest imagined.

        own_actions: acts with the actor's modes instead of the recorded actions.
        """
        return imagined_frames(self.model, self._tensors(batch), context, own_actions)

    def save(self, directory: Path | str) -> None:
        """Everything needed to continue exactly: weights, optimisers, random state."""
        save_learner_state(self, Path(directory))

    def load(self, directory: Path | str) -> None:
        """Continues a checkpoint of `save`, or starts from the weights of one of `export` with fresh optimisers.

        Raises `CheckpointError` naming the field or tensor that differs.
        """
        load_learner_state(self, Path(directory))

    def export(self, directory: Path | str, half: bool = True) -> None:
        """Weights alone, matrices in float16 when `half` (rules: `storage`)."""
        export_model(self, Path(directory), half)

    @classmethod
    def load_policy(cls, directory: Path | str, device: torch.device | str = "cpu") -> FospPolicy:
        """The policy of a checkpoint of `save` or `export`. Raises `CheckpointError`."""
        model, specs = load_model(Path(directory), torch.device(device))
        return FospPolicy(model, specs, device)
