"""Stage 1: training the discriminator return-agnostically, and the safety signal of every trajectory."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from safe_policy_core.interfaces import Specs
from safe_policy_core.methods.dspo.config import DspoConfig
from safe_policy_core.methods.dspo.discriminator import NETWORKS, Judgement
from safe_policy_core.methods.dspo.return_agnostic import ReturnClassifier, likelihood_loss, vclub
from safe_policy_core.methods.dspo.stage import Stage
from safe_policy_core.methods.dspo.trajectories import Trajectories
from safe_policy_core.networks.optimiser import Optimiser

_CLIP = 10.0
_PIECES_AT_ONCE = 64


class DiscriminatorStage(Stage):
    """Minimises L_D (eq. 1) + weight * I_vCLUB (eq. 4), in turns with the likelihood of q(r | z) (eq. 5).

    The expectations of eq. 4 and 5 are over the same balanced batches as eq. 1. Over D^U alone, a discriminator that
    knows the demonstrations by heart and says 0 to all others would have no mutual information, and nothing to mend.
    """

    method = "dspo_discriminator"

    def __init__(self, specs: Specs, config: DspoConfig | None = None, seed: int = 0,
                 device: torch.device | str = "cpu") -> None:
        super().__init__(specs, config, seed, device)
        settings = self.config.discriminator
        self.optimisers = {
            "discriminator": Optimiser(self.networks["discriminator"], settings.learning_rate, _CLIP),
            "classifier": Optimiser(self.networks["classifier"], settings.classifier_learning_rate, _CLIP)}

    def make_networks(self) -> dict[str, nn.Module]:
        settings = self.config.discriminator
        return {"discriminator": NETWORKS[settings.network](self.features.size, self.action_dim, settings),
                "classifier": ReturnClassifier(settings.bins, settings.classifier_units)}

    def fit_returns(self, returns: np.ndarray) -> None:
        """Sets the range of the return bins; before the first step."""
        classifier = self.networks["classifier"]
        assert isinstance(classifier, ReturnClassifier)
        classifier.fit_range(float(returns.min()), float(returns.max()))

    def update(self, batch: Mapping[str, np.ndarray]) -> dict[str, float]:
        """One step of q on paired data, then one of the discriminator, on a batch of `DiscriminatorSource`."""
        self.step += 1
        settings, classifier = self.config.discriminator, self.networks["classifier"]
        assert isinstance(classifier, ReturnClassifier)
        states, actions, mask, safe, returns = (torch.as_tensor(batch[name], device=self.device) for name in
                                                ("states", "actions", "mask", "safe", "returns"))
        discriminator = self.networks["discriminator"].train()
        logit = discriminator(states, actions, mask).logit
        classes, metrics = classifier.classes(returns), {}
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
            penalty = self._gradient_penalty(states, actions, mask, safe)
            metrics["gradient_penalty"] = float(penalty.detach())
            loss = loss + settings.gradient_penalty * penalty
        metrics["gradient_norm"] = self.optimisers["discriminator"].step(loss)
        accuracy = ((logit > 0) == safe).float().mean()
        return metrics | {"vclub": float(bound.detach()), "accuracy": float(accuracy)}

    def _gradient_penalty(self, states: Tensor, actions: Tensor, mask: Tensor, safe: Tensor) -> Tensor:
        """(|gradient of the logit| - 1)^2 at random mixtures of safe and unlabelled pieces (Gulrajani et al. 2017)."""
        count = int(min(safe.sum(), (~safe).sum()))
        share = torch.rand(count, 1, 1).to(self.device)
        mixed = [(share * value[safe][:count] + (1 - share) * value[~safe][:count]).detach().requires_grad_()
                 for value in (states, actions)]
        both = mask[safe][:count] & mask[~safe][:count]
        # Only the plain attention has a second derivative.
        with sdpa_kernel(SDPBackend.MATH):
            logit = self.networks["discriminator"](*mixed, both).logit
            gradients = torch.autograd.grad(logit.sum(), mixed, create_graph=True)
        norm = torch.cat([gradient.flatten(1) for gradient in gradients], 1).square().sum(1).add(1e-12).sqrt()
        return (norm - 1).square().mean()

    @torch.no_grad()
    def judge(self, trajectories: Trajectories) -> list[tuple[float, np.ndarray]]:
        """(z, attention of each step, sum 1) of every trajectory.

        A trajectory longer than the discriminator's length is cut into pieces whose z_t are averaged together.
        """
        discriminator, length = self.networks["discriminator"].eval(), self.config.discriminator.length
        pieces = [(episode, first) for episode, steps in enumerate(trajectories.lengths)
                  for first in range(0, int(steps), length)]
        logits, weights = np.zeros(len(trajectories)), np.zeros(len(trajectories.states), np.float32)
        for begin in range(0, len(pieces), _PIECES_AT_ONCE):
            episode, first = np.array(pieces[begin:begin + _PIECES_AT_ONCE]).T
            longest = int(np.minimum(trajectories.lengths[episode] - first, length).max())
            batch = trajectories.windows(episode, first, longest)
            judgement: Judgement = discriminator(*(torch.as_tensor(batch[name], device=self.device) for name in
                                                   ("states", "actions", "mask")))
            share = batch["mask"].sum(1) / trajectories.lengths[episode]
            np.add.at(logits, episode, share * judgement.logit.cpu().numpy())
            row = (trajectories.starts[episode] + first)[:, None] + np.arange(longest)
            attention = share[:, None] * judgement.attention.cpu().numpy()
            weights[row[batch["mask"]]] = attention[batch["mask"]]
        signals = 1 / (1 + np.exp(-logits))
        return [(float(signal), weights[begin:end]) for signal, begin, end in
                zip(signals, trajectories.starts[:-1], trajectories.starts[1:], strict=True)]


def discriminator_loss(logit: Tensor, safe: Tensor) -> Tensor:
    """Eq. 1: -E_{D^S}[log z] - E_{D^U}[log(1 - z)], z = sigmoid(logit)."""
    return functional.softplus(-logit[safe]).mean() + functional.softplus(logit[~safe]).mean()
