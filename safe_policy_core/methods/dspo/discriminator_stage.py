"""Stage 1: training the discriminator return-agnostically, and the safety signal of every trajectory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from safe_policy_core.errors import ConfigurationError, DatasetError
from safe_policy_core.interfaces import Specs
from safe_policy_core.methods.dspo.config import DspoConfig
from safe_policy_core.methods.dspo.discriminator import NETWORKS, Judgement
from safe_policy_core.methods.dspo.inputs import INPUTS
from safe_policy_core.methods.dspo.judgements import ALL, Judgements
from safe_policy_core.methods.dspo.return_agnostic import ReturnClassifier, likelihood_loss, vclub
from safe_policy_core.methods.dspo.stage import Stage
from safe_policy_core.methods.dspo.trajectories import DiscriminatorSource, Trajectories
from safe_policy_core.networks.optimiser import Optimiser

_CLIP = 10.0
_PIECES_AT_ONCE = 64


class DiscriminatorStage(Stage):
    """Minimises L_D (eq. 1) + weight * I_vCLUB (eq. 4), in turns with the likelihood of q(r | z) (eq. 5).

    The expectations of eq. 4 and 5 are over the same balanced batches as eq. 1. Over D^U alone, a discriminator that
    knows the demonstrations by heart and says 0 to all others would have no mutual information, and nothing to mend.
    """

    method = "dspo_discriminator"
    part = "discriminator"

    def __init__(self, specs: Specs, config: DspoConfig | None = None, seed: int = 0,
                 device: torch.device | str = "cpu") -> None:
        super().__init__(specs, config, seed, device)
        settings = self.config.discriminator
        self.optimisers = {
            "discriminator": Optimiser(self.networks["discriminator"], settings.learning_rate, _CLIP),
            "classifier": Optimiser(self.networks["classifier"], settings.classifier_learning_rate, _CLIP)}

    def make_networks(self) -> dict[str, nn.Module]:
        settings = self.config.discriminator
        if settings.folds < 1:
            raise ConfigurationError(f"discriminator.folds: expected at least 1, got {settings.folds}")
        kind, members = NETWORKS[settings.network], range(settings.folds)
        return {"inputs": INPUTS[settings.inputs](self.features.size),
                "discriminator": nn.ModuleList(kind(self.features.size, self.action_dim, settings) for _ in members),
                "classifier": nn.ModuleList(ReturnClassifier(settings.bins, settings.classifier_units)
                                            for _ in members)}

    def fit(self, trajectories: Trajectories) -> None:
        """Takes the scales of inputs and the range of the return bins; before the first step.

        Raises `DatasetError` for too few: every discriminator needs some of each kind to learn from, and some
        unlabelled ones to judge.
        """
        folds, safe = self.config.discriminator.folds, int(trajectories.safe.sum())
        if safe < min(2, folds) or len(trajectories) - safe < folds:
            raise DatasetError(f"trajectories: {folds} folds need at least 2 safe demonstrations and {folds} others, "
                               f"got {safe} and {len(trajectories) - safe}")
        self.networks["inputs"].fit(trajectories)  # type: ignore[operator]
        for classifier in self._classifiers:
            classifier.fit_range(float(trajectories.returns.min()), float(trajectories.returns.max()))

    def source(self, trajectories: Trajectories) -> DiscriminatorSource:
        """Batches for `update`."""
        settings = self.config.discriminator
        return DiscriminatorSource(self.networks["inputs"](trajectories), settings.folds,
                                   settings.opposite == "rivals")

    @property
    def _classifiers(self) -> Iterable[ReturnClassifier]:
        return self.networks["classifier"]  # type: ignore[return-value]

    def update(self, batch: Mapping[str, np.ndarray]) -> dict[str, float]:
        """One step of each q on paired data, then one of each discriminator, on a batch of `source`."""
        self.step += 1
        fold, found = torch.as_tensor(batch["fold"]), []
        values = [torch.as_tensor(batch[name]) for name in ("states", "actions", "mask", "safe", "returns")]
        for number, classifier in enumerate(self._classifiers):
            shown = fold != number if self.config.discriminator.folds > 1 else fold >= 0
            part = [value[shown].to(self.device) for value in values]
            # In a small batch all of one kind can be those that this one is not to see.
            if part[3].any() and not part[3].all():
                found.append(self._losses(number, classifier, *part))
        if not found:
            return {}
        norm = self.optimisers["discriminator"].step(torch.stack([loss for loss, _ in found]).sum())
        return {name: float(np.mean([metrics[name] for _, metrics in found])) for name in found[0][1]} | {
            "gradient_norm": norm}

    def _losses(self, number: int, classifier: ReturnClassifier, states: Tensor, actions: Tensor, mask: Tensor,
                safe: Tensor, returns: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Loss and metrics of one discriminator; its q learns before."""
        settings, metrics = self.config.discriminator, {}
        logit = self._member(number).train()(states, actions, mask).logit
        classes = classifier.classes(returns)
        if settings.return_weight:
            for _ in range(settings.classifier_steps):
                likelihood = likelihood_loss(classifier(logit.detach()), classes)
                self.optimisers["classifier"].step(likelihood)
            metrics["classifier_loss"] = float(likelihood.detach())
        loss = discriminator_loss(logit, safe)
        metrics["discriminator_loss"] = float(loss.detach())
        bound = vclub(classifier(logit), classes)
        loss = loss + settings.return_weight * bound
        if settings.gradient_penalty:
            penalty = self._gradient_penalty(number, states, actions, mask, safe)
            metrics["gradient_penalty"] = float(penalty.detach())
            loss = loss + settings.gradient_penalty * penalty
        accuracy = ((logit > 0) == safe).float().mean()
        return loss, metrics | {"vclub": float(bound.detach()), "accuracy": float(accuracy)}

    def _member(self, number: int) -> nn.Module:
        return self.networks["discriminator"][number]  # type: ignore[index]

    def _gradient_penalty(self, number: int, states: Tensor, actions: Tensor, mask: Tensor, safe: Tensor
                          ) -> Tensor:
        """(|gradient of the logit| - 1)^2 at random mixtures of safe and unlabelled pieces (Gulrajani et al. 2017)."""
        count = int(min(safe.sum(), (~safe).sum()))
        share = torch.rand(count, 1, 1).to(self.device)
        mixed = [(share * value[safe][:count] + (1 - share) * value[~safe][:count]).detach().requires_grad_()
                 for value in (states, actions)]
        both = mask[safe][:count] & mask[~safe][:count]
        # Only the plain attention has a second derivative.
        with sdpa_kernel(SDPBackend.MATH):
            logit = self._member(number)(*mixed, both).logit
            gradients = torch.autograd.grad(logit.sum(), mixed, create_graph=True)
        norm = torch.cat([gradient.flatten(1) for gradient in gradients], 1).square().sum(1).add(1e-12).sqrt()
        return (norm - 1).square().mean()

    def judge(self, trajectories: Trajectories, held_out: bool = False) -> list[tuple[float, np.ndarray]]:
        """(z, attention of each step, sum 1) of every trajectory (`Judgements.told`).

        held_out: these are the trajectories of the training, each is judged by the discriminator that has not seen it,
        whose logits are standardised by those of the unlabelled among them: no two have the same zero and unit. Else
        the logits of all are averaged as they are.
        """
        judgements = self.judgements(trajectories)
        if not held_out:
            return judgements.told(np.full(len(trajectories), ALL))
        fold = trajectories.folds(self.config.discriminator.folds)
        return judgements.told(fold, judgements.scale(fold, trajectories.safe))

    @torch.no_grad()
    def judgements(self, trajectories: Trajectories) -> Judgements:
        """What each discriminator says. A trajectory longer than the discriminator's length is cut into pieces."""
        members, length = self.config.discriminator.folds, self.config.discriminator.length
        shown = self.networks["inputs"](trajectories)
        pieces = [(episode, first) for episode, steps in enumerate(shown.lengths)
                  for first in range(0, int(steps), length)]
        logits, attention = np.zeros((len(pieces), members)), np.zeros((len(shown.states), members), np.float32)
        piece = np.zeros(len(shown.states), np.int64)
        for begin in range(0, len(pieces), _PIECES_AT_ONCE):
            episode, first = np.array(pieces[begin:begin + _PIECES_AT_ONCE]).T
            longest = int(np.minimum(shown.lengths[episode] - first, length).max())
            batch = shown.windows(episode, first, longest)
            inputs = [torch.as_tensor(batch[name], device=self.device) for name in ("states", "actions", "mask")]
            row = ((shown.starts[episode] + first)[:, None] + np.arange(longest))[batch["mask"]]
            piece[row] = begin + np.nonzero(batch["mask"])[0]
            for number in range(members):
                judgement: Judgement = self._member(number).eval()(*inputs)
                logits[begin:begin + len(episode), number] = judgement.logit.cpu().numpy()
                attention[row, number] = judgement.attention.cpu().numpy()[batch["mask"]]
        return Judgements(logits, attention, np.array([episode for episode, _ in pieces]), piece, shown.starts)

    @property
    def attends(self) -> bool:
        """Whether the attention says anything; the MLP's is the same for every step."""
        return NETWORKS[self.config.discriminator.network].attends


def discriminator_loss(logit: Tensor, safe: Tensor) -> Tensor:
    """Eq. 1: -E_{D^S}[log z] - E_{D^U}[log(1 - z)], z = sigmoid(logit)."""
    return functional.softplus(-logit[safe]).mean() + functional.softplus(logit[~safe]).mean()
