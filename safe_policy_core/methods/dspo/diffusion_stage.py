"""Stage 2: the conditional diffusion of trajectories (eq. 6), and the trajectories D^G drawn from it."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from safe_policy_core.errors import DatasetError
from safe_policy_core.interfaces import Specs
from safe_policy_core.methods.dspo.config import ASKED_LATER, DspoConfig
from safe_policy_core.methods.dspo.stage import Stage
from safe_policy_core.methods.dspo.trajectories import Generated, Trajectories, ranks
from safe_policy_core.networks.diffusion import Denoiser, Diffusion, guided
from safe_policy_core.networks.optimiser import Optimiser
from safe_policy_core.networks.unet1d import TemporalUnet

CONDITIONS = 2
"""Return as a fraction of the range in the data, and rank of the safety signal z."""
_CLIP = 1.0
_AT_ONCE = 64


class DiffusionStage(Stage):
    """Predicts the clean piece of a trajectory, or the noise in it; an average of the weights (EMA) generates.

    A step is a state, an action, and one number that is 1 while the episode lasts and -1 behind its end, by
    which trajectories of different lengths fit one horizon.
    """

    method = "dspo_diffusion"
    part = "diffusion"
    asked_later = ASKED_LATER

    def __init__(self, specs: Specs, config: DspoConfig | None = None, seed: int = 0,
                 device: torch.device | str = "cpu") -> None:
        super().__init__(specs, config, seed, device)
        self.diffusion = Diffusion(self.config.diffusion.diffusion_steps).to(self.device)
        self.optimisers = {"unet": Optimiser(self.networks["unet"], self.config.diffusion.learning_rate, _CLIP)}

    def make_networks(self) -> dict[str, nn.Module]:
        settings = self.config.diffusion
        unet = TemporalUnet(self.features.size + self.action_dim + 1, settings.dim, settings.multipliers, CONDITIONS)
        return {"unet": unet, "average": copy.deepcopy(unet).requires_grad_(False)}

    def update(self, batch: Mapping[str, np.ndarray]) -> dict[str, float]:
        """One step on a batch of `DiffusionSource`."""
        self.step += 1
        settings = self.config.diffusion
        clean, conditions = pieces(batch).to(self.device), torch.as_tensor(batch["conditions"], device=self.device)
        # Drawn on the CPU: the same numbers on every device.
        step = torch.randint(0, settings.diffusion_steps, (len(clean),)).to(self.device)
        noise = torch.randn(clean.shape).to(self.device)
        keep = (torch.rand(len(clean)) >= settings.condition_dropout).float().to(self.device)
        loss = diffusion_loss(self.networks["unet"], self.diffusion, clean, step, noise, conditions, keep,
                              settings.predicts)
        norm = self.optimisers["unet"].step(loss)
        with torch.no_grad():
            # A short run would otherwise still average over its random start.
            rate = 1 - min(settings.ema, self.step / (self.step + 10))
            for average, now in zip(self.networks["average"].parameters(), self.networks["unet"].parameters(),
                                    strict=True):
                average.lerp_(now, rate)
        return {"diffusion_loss": float(loss.detach()), "gradient_norm": norm}

    def generate(self, conditions: np.ndarray, seed: int, guidance: float | None = None) -> Generated:
        """One trajectory for each (M, 2) row of conditions; `seed` fixes all of them. guidance: None, the config's."""
        settings, parts = self.config.diffusion, []
        scale = settings.guidance if guidance is None else guidance
        generator = torch.Generator().manual_seed(seed)
        network = self.networks["average"].eval()
        for begin in range(0, len(conditions), _AT_ONCE):
            given = torch.as_tensor(conditions[begin:begin + _AT_ONCE], dtype=torch.float32, device=self.device)
            shape = (len(given), settings.horizon, self.features.size + self.action_dim + 1)
            start = torch.randn(shape, generator=generator).to(self.device)
            denoiser = guided(network, given, scale)
            if settings.predicts == "clean":
                denoiser = self._of_clean(denoiser)
            parts.append(self.diffusion.sample(denoiser, start, generator, settings.sampling_steps,
                                               settings.sampling_eta, bound=1.0))
        drawn = torch.cat(parts).cpu().numpy()
        size = self.features.size
        mask = np.arange(settings.horizon) < likely_lengths(drawn[..., -1])[:, None]
        return Generated(drawn[..., :size], drawn[..., size:-1].clip(-1, 1), mask, conditions)


    def _of_clean(self, denoiser: Denoiser) -> Denoiser:
        """The noise that follows from a predicted clean value."""
        return lambda value, step: self.diffusion.noise(value, step, denoiser(value, step))


def pieces(batch: Mapping[str, np.ndarray]) -> Tensor:
    """(B, H, size + action_dim + 1): states, actions, and whether the episode lasts."""
    lasts = np.where(batch["mask"], np.float32(1), np.float32(-1))[..., None]
    return torch.as_tensor(np.concatenate([batch["states"], batch["actions"], lasts], -1))


def likely_lengths(lasts: np.ndarray) -> np.ndarray:
    """(M, H) numbers around 1 before and -1 behind the end of each trajectory -> (M,) lengths from 1 to H.

    The length whose ones and minus ones are closest in squares, so that a single wrong number does no harm.
    """
    return 1 + np.argmax(np.cumsum(lasts, 1), 1)


def diffusion_loss(network: nn.Module, diffusion: Diffusion, clean: Tensor, step: Tensor, noise: Tensor,
                   conditions: Tensor, keep: Tensor, predicts: str = "noise") -> Tensor:
    """Eq. 6: the mean squared error of the predicted noise, or of what is predicted in its place ("clean")."""
    predicted = network(diffusion.noisy(clean, step, noise), step, conditions, keep)
    return (predicted - (noise if predicts == "noise" else clean)).square().mean()


def desired_conditions(trajectories: Trajectories, signals: np.ndarray, count: int, seed: int, quantile: float = 0.0
                       ) -> np.ndarray:
    """(count, 2): returns drawn from the range of D^S, and a quantile of the z of D^S (appendix D.1: the smallest).

    signals: (E,) z of every trajectory. Raises `DatasetError` without safe demonstrations.
    """
    if not trajectories.safe.any():
        raise DatasetError("safe demonstrations: expected at least one, got none")
    returns = trajectories.scaled_return(trajectories.returns[trajectories.safe])
    drawn = np.random.default_rng((seed, 11)).uniform(returns.min(), returns.max(), count)
    rank = np.quantile(ranks(signals)[trajectories.safe], quantile)
    return np.stack([drawn, np.full(count, rank)], 1).astype(np.float32)
