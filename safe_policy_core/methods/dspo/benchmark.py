"""Speed of the trajectory diffusion for `make bench`, beside `diffusers`' UNet1DModel of the same size.

The peer is measured in the same run, in turns with ours, from a copy of `diffusers` in `.tools/diffusers`
(`python -m venv .tools/diffusers && .tools/diffusers/bin/pip install diffusers`); without it the peer is left out.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from safe_policy_core.methods.dspo.diffusion_stage import CONDITIONS, diffusion_loss
from safe_policy_core.networks.diffusion import Diffusion, guided
from safe_policy_core.networks.unet1d import TemporalUnet

DIM, MULTIPLIERS, HORIZON, BATCH = 128, (1, 4, 8), 100, 64
CHANNELS = 32
"""State, action and "lasts" of a middling task; the inner channels are hundreds."""
TRAJECTORIES, SAMPLING_STEPS = 256, 10
SAMPLED_AT_ONCE = 32
REPEATS = 3
PEER = Path(".tools/diffusers/lib")


class PeerUnet(nn.Module):
    """diffusers' model behind the interface of `TemporalUnet`; the conditions are not used by it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, value: Tensor, step: Tensor, conditions: Tensor, keep: Tensor) -> Tensor:
        return self.model(value.transpose(1, 2), step).sample.transpose(1, 2)


def peer() -> nn.Module | None:
    """UNet1DModel as the port of Diffuser configures it (residual blocks, Mish), or None where it is not installed."""
    folders = sorted(PEER.glob("python3.*/site-packages"))
    if not folders:
        return None
    # Behind our own packages, which both use: the same torch and numpy.
    sys.path.append(str(folders[0]))
    try:
        model = importlib.import_module("diffusers").UNet1DModel(
            sample_size=HORIZON, in_channels=CHANNELS, out_channels=CHANNELS, layers_per_block=1, act_fn="mish",
            time_embedding_type="positional", use_timestep_embedding=True, flip_sin_to_cos=False, freq_shift=1,
            block_out_channels=tuple(DIM * multiplier for multiplier in MULTIPLIERS), norm_num_groups=8,
            down_block_types=("DownResnetBlock1D",) * len(MULTIPLIERS), mid_block_type="MidResTemporalBlock1D",
            up_block_types=("UpResnetBlock1D",) * (len(MULTIPLIERS) - 1), out_block_type="OutConv1DBlock",
            downsample_each_block=False)
    except ImportError:
        return None
    return PeerUnet(model)


def training_step(network: nn.Module, diffusion: Diffusion) -> Callable[[], None]:
    """One Adam step on a batch of noise."""
    adam = torch.optim.Adam(network.parameters(), 2e-4, fused=True)
    clean = torch.rand(BATCH, HORIZON, CHANNELS) * 2 - 1
    conditions, keep = torch.rand(BATCH, CONDITIONS), torch.ones(BATCH)

    def step() -> None:
        time_step = torch.randint(0, diffusion.steps, (BATCH,))
        loss = diffusion_loss(network, diffusion, clean, time_step, torch.randn_like(clean), conditions, keep)
        adam.zero_grad(set_to_none=True)
        loss.backward()
        adam.step()

    return step


def sampling(network: nn.Module, diffusion: Diffusion) -> Callable[[], None]:
    """One batch of trajectories by DDIM with guidance: `SAMPLING_STEPS` forward passes on twice the batch."""
    conditions, generator = torch.rand(SAMPLED_AT_ONCE, CONDITIONS), torch.Generator().manual_seed(0)

    def sample() -> None:
        diffusion.sample(guided(network, conditions, 1.2), torch.randn(SAMPLED_AT_ONCE, HORIZON, CHANNELS),
                         generator, SAMPLING_STEPS, 0.0, bound=1.0)

    return sample


def fastest(works: dict[str, Callable[[], None]], repeats: int = REPEATS) -> dict[str, float]:
    """Seconds of the fastest of `repeats` calls of each, in turns, so that a busy machine disturbs all the same."""
    found: dict[str, float] = {}
    for attempt in range(repeats + 1):
        for name, work in works.items():
            begin = time.perf_counter()
            work()
            if attempt:  # the first is a warm-up
                found[name] = min(found.get(name, float("inf")), time.perf_counter() - begin)
    return found


def rows() -> list[dict[str, Any]]:
    """One row a figure: name, value, unit, peer, peer_value, ratio."""
    torch.manual_seed(0)
    diffusion = Diffusion(200)
    networks: dict[str, nn.Module] = {"ours": TemporalUnet(CHANNELS, DIM, MULTIPLIERS, CONDITIONS)}
    if (other := peer()) is not None:
        networks["diffusers"] = other
    sizes = {name: sum(parameter.numel() for parameter in network.parameters()) / 1e6
             for name, network in networks.items()}
    steps = fastest({name: training_step(network, diffusion) for name, network in networks.items()})
    samples = fastest({name: sampling(network.eval(), diffusion) for name, network in networks.items()}, 1)
    scale = TRAJECTORIES / SAMPLED_AT_ONCE
    figures = [(f"trajectory diffusion: training step, {sizes['ours']:.1f} M parameters, batch {BATCH}", steps, 1.0),
               (f"trajectory diffusion: {TRAJECTORIES} trajectories, {SAMPLING_STEPS} DDIM steps", samples, scale)]
    found = []
    for name, seconds, factor in figures:
        theirs = seconds.get("diffusers")
        found.append({"name": name, "value": factor * seconds["ours"], "unit": "s",
                      "peer": None if theirs is None else f"diffusers UNet1DModel, {sizes['diffusers']:.1f} M",
                      "peer_value": None if theirs is None else factor * theirs,
                      "ratio": None if theirs is None else seconds["ours"] / theirs})
    return found
