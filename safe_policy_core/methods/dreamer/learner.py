"""DreamerV3 (Hafner et al. 2023) offline and online, on FOSP's world model, data and training loop.

The baseline of FOSP's Appendix F that overlooks constraints. What differs from DreamerV3:
- The world model has a cost head, which is shown zeros here, so that nothing in the model knows of costs.
- Offline a share of an ensemble's disagreement is taken from imagined rewards (Appendix F; `disagreement`).
- Rollouts count with the probability that they go on, without the discount (the same for every method here).
SafeDreamer and Recovery RL inherit from this learner.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from safe_policy_core.checkpoint import load_checkpoint, load_into
from safe_policy_core.errors import DatasetError
from safe_policy_core.interfaces import Specs
from safe_policy_core.methods.configuration import from_json
from safe_policy_core.methods.dreamer.actor_loss import actor_loss
from safe_policy_core.methods.dreamer.config import DreamerConfig
from safe_policy_core.methods.dreamer.model import DreamerModel
from safe_policy_core.methods.dreamer.policy import DreamerPolicy
from safe_policy_core.methods.dreamer.storage import MODEL, load_learner_state, save_learner_state
from safe_policy_core.networks.distributions import BoundedGaussian
from safe_policy_core.networks.optimiser import Optimiser
from safe_policy_core.vision import Surroundings
from safe_policy_core.vision.tool_view import SCENE
from safe_policy_core.world_model import Batch, ImaginedSteps, LatentState, RealSteps, imagine, real_steps, to_batch


@dataclass(frozen=True)
class Experience:
    """What one batch gives the behaviour to learn from.

    real: recorded steps; their features depend on `context`. context: the tool view's leaf (B, L, size), or None.
    rollout: (H + 1, N, features) of `imagined` with the graph through the world model to the actions.
    """

    real: RealSteps
    context: Tensor | None
    rollout: Tensor
    imagined: ImaginedSteps


class DreamerLearner:
    """Trains a `DreamerModel`. Offline until `start_fine_tuning`, online after it.

    The same specs, config, seed and batches give the same numbers on a CPU.
    """

    config_class: ClassVar[type[DreamerConfig]] = DreamerConfig
    method: ClassVar[str] = "dreamer"
    model_class: ClassVar[type[DreamerModel]] = DreamerModel
    policy_class: ClassVar[type[DreamerPolicy]] = DreamerPolicy
    sees_cost: ClassVar[bool] = False

    def __init__(self, specs: Specs, config: DreamerConfig | None = None, seed: int = 0,
                 device: torch.device | str = "cpu") -> None:
        self.specs, self.config, self.seed = specs, config or self.config_class(), seed
        self.device = torch.device(device)
        self.step, self.online = 0, False
        self.generator = torch.Generator(self.device)
        self.generator.manual_seed(seed)
        # Initial weights come from the seed alone, whatever the process drew before.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = self.model_class(specs, self.config).to(self.device)
        self.optimisers = self.make_optimisers()

    def make_optimisers(self) -> dict[str, Optimiser]:
        """One for each part, by the part's name."""
        config, model = self.config, self.model
        rate, clip = config.world_model.learning_rate, config.world_model.gradient_clip
        optimisers = {"world_model": Optimiser(model.world_model, rate, clip),
                      "actor": Optimiser(model.actor, config.actor_learning_rate, config.gradient_clip)}
        optimisers |= {name: Optimiser(critic, config.critic_learning_rate, config.gradient_clip)
                       for name, (critic, _) in model.critics.items()}
        if model.disagreement is not None:
            optimisers["disagreement"] = Optimiser(model.disagreement, rate, clip)
        if model.tool_view is not None:
            optimisers["tool_view"] = Optimiser(model.tool_view, rate, config.gradient_clip)
        return optimisers

    def update(self, batch: Mapping[str, np.ndarray]) -> dict[str, float]:
        """One step of every part. Returns metrics by name.

        batch: the fields of `EpisodeStore.sample`. Raises `DatasetError` for a missing field.
        """
        model, optimisers = self.model, self.optimisers
        tensors = self._tensors(batch)
        model.world_model.encoder.update_statistics(tensors)
        around = context = view = None
        if model.tool_view is not None:
            # As in FOSP: the losses' gradients meet at this leaf and go through the network once.
            around = model.tool_view.surroundings(tensors)
            view = model.tool_view(around)
            context = view.detach().unflatten(0, tensors["is_first"].shape).requires_grad_()
        loss, states, metrics = model.world_model.loss(tensors, self.generator, context)
        norms = {"model": optimisers["world_model"].step(loss, context)}
        states = states.detach()
        if model.disagreement is not None:
            metrics["model/disagreement_loss"] = loss = model.disagreement.loss(states)
            norms["disagreement"] = optimisers["disagreement"].step(loss)

        states = states.with_context(context)
        experience = Experience(real_steps(states.features, tensors)[0], context,
                                *self._imagine(states.detach(), tensors["is_terminal"], around))
        for part in (self._learn_to_act, self._learn_more):
            more, gradients = part(experience)
            metrics, norms = metrics | more, norms | gradients
        if view is not None and context is not None:
            assert context.grad is not None  # the heads' loss reaches it
            norms["tool_view"] = optimisers["tool_view"].step((view * context.grad.flatten(0, 1)).sum())
        self.step += 1
        numbers = torch.stack([value.detach().float().mean() for value in metrics.values()]).tolist()
        return dict(zip(metrics, numbers, strict=True)) | {f"norm/{name}": norm for name, norm in norms.items()}

    def _tensors(self, batch: Mapping[str, np.ndarray]) -> Batch:
        tensors = to_batch(batch, self.specs, self.device)
        if not self.sees_cost:
            tensors["cost"] = torch.zeros_like(tensors["cost"])
        if self.model.tool_view is not None:
            if SCENE not in batch:
                raise DatasetError(f"batch: missing {SCENE}, which the tool view needs")
            tensors[SCENE] = torch.from_numpy(np.ascontiguousarray(batch[SCENE])).to(self.device)
        return tensors

    def _imagine(self, states: LatentState, is_terminal: Tensor, around: Surroundings | None
                 ) -> tuple[Tensor, ImaginedSteps]:
        """Rollouts of the actor from a share of the posterior states."""
        model, config = self.model, self.config
        total = is_terminal.numel()
        count = min(config.imagination_starts or total, total)
        index = torch.randperm(total, generator=self.generator, device=self.device)[:count]
        normal = torch.randn((config.horizon, count, model.actor.action_dim), generator=self.generator,
                             device=self.device)
        # Cut at the state: an action is judged by what it leads to, not by what led to it (DreamerV3).
        return imagine(model.world_model, states.select(index), is_terminal.flatten()[index],
                       lambda features, step: model.actor(features.detach()).sample(normal[step]), config.horizon,
                       self.generator, None if around is None else model.moving_context(around.select(index)))

    def returns(self, experience: Experience) -> dict[str, Tensor]:
        """Lambda returns (H, N) of every critic's kind, with a graph to the actions for the dynamics' gradient."""
        model, config, imagined = self.model, self.config, experience.imagined
        dynamics = config.actor_gradient == "dynamics"
        features = experience.rollout if dynamics else imagined.features
        found = {}
        with torch.set_grad_enabled(dynamics):
            for name, (critic, head) in model.critics.items():
                received = head(features[1:])
                if name == "reward" and model.disagreement is not None and not self.online:
                    received = received - config.uncertainty * model.disagreement(features[1:])
                found[name] = critic.returns(features, received, imagined.continues, config.discount, config.blend)
        return found

    def _learn_to_act(self, experience: Experience) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Steps of the actor and of the critics: metrics, and gradients' norms."""
        imagined = experience.imagined
        returns = self.returns(experience)
        self.model.scale.update(returns["reward"])
        loss, metrics = self.actor_loss(experience, returns, self.model.actor(imagined.features[:-1]))
        norms = {"actor": self.optimisers["actor"].step(loss)}
        for name, (critic, _) in self.model.critics.items():
            metrics[f"{name}/critic_loss"] = loss = critic.loss(imagined, returns[name])
            norms[name] = self.optimisers[name].step(loss)
            critic.update_slow()
        return metrics, norms

    def actor_loss(self, experience: Experience, returns: Mapping[str, Tensor], distribution: BoundedGaussian
                   ) -> tuple[Tensor, dict[str, Tensor]]:
        """A scalar and metrics. distribution: of the actor at the states s^0 .. s^{H-1}."""
        imagined = experience.imagined
        with torch.no_grad():
            values = self.model.reward_critic(imagined.features[:-1])
        return actor_loss(imagined, distribution, returns["reward"], values, self.model.scale.scale(),
                          self.config.entropy, self.config.actor_gradient == "reinforce")

    def _learn_more(self, experience: Experience) -> tuple[dict[str, Tensor], dict[str, float]]:
        """What a method learns beside actor and critics: metrics, and gradients' norms."""
        return {}, {}

    def start_fine_tuning(self) -> None:
        """Turns online: real episodes correct what is imagined, so the ensemble's disagreement is free from here on."""
        self.online = True

    def policy(self) -> DreamerPolicy:
        """A policy that shares the weights in training; its recurrent state and its draws are its own."""
        return self.policy_class(self.model, self.specs, self.device)

    def save(self, directory: Path | str) -> None:
        """Everything needed to continue exactly: weights, optimisers, random state."""
        save_learner_state(self, Path(directory))

    def load(self, directory: Path | str) -> None:
        """Continues a checkpoint of `save`. Raises `CheckpointError` naming the field or tensor that differs."""
        load_learner_state(self, Path(directory))

    @classmethod
    def load_policy(cls, directory: Path | str, device: torch.device | str = "cpu") -> DreamerPolicy:
        """The policy of a checkpoint. Raises `CheckpointError`."""
        directory, device = Path(directory), torch.device(device)
        tensors, manifest = load_checkpoint(directory, method=cls.method)
        specs = Specs.from_json(manifest["specs"])
        model = cls.model_class(specs, from_json(cls.config_class, manifest["config"])).to(device)
        load_into(model, tensors, MODEL)
        return cls.policy_class(model.eval().requires_grad_(False), specs, device)
