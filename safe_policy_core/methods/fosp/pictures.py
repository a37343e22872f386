"""Pictures of what the world model sees and expects, for people to look at."""

from __future__ import annotations

import numpy as np
import torch

from safe_policy_core.methods.fosp.model import FospModel
from safe_policy_core.vision.tool_view import IMAGE, POSE, SCENE
from safe_policy_core.world_model import Batch, LatentState


def _filter(model: FospModel, batch: Batch) -> LatentState:
    """Posterior modes of (B, L) sequences: all-ones noise makes every draw the likeliest class."""
    world_model, config = model.world_model, model.world_model.config
    noise = torch.ones((*batch["is_first"].shape, config.latents, config.classes), device=batch["is_first"].device)
    return world_model.rssm.observe(world_model.encoder(batch), batch["action"], batch["is_first"], noise)[0]


@torch.no_grad()
def reconstructed_frames(model: FospModel, batch: Batch) -> dict[str, np.ndarray]:
    """Decoded posterior modes by observation name, (B, L, ...)."""
    decoded = model.world_model.decoder.decode(_filter(model, batch).latent, model.world_model.encoder)
    return {name: value.cpu().numpy() for name, value in decoded.items()}


@torch.no_grad()
def imagined_frames(model: FospModel, batch: Batch, context: int, own_actions: bool) -> dict[str, np.ndarray]:
    """`context` rows of posterior modes, then prior modes under recorded or the actor's actions, decoded."""
    world_model = model.world_model
    states = _filter(model, batch)
    latents = list(states.latent[:, :context].unbind(1))
    state = LatentState(states.deter[:, context - 1], states.stochastic[:, context - 1])
    moving = None
    if model.tool_view is not None:
        around = model.tool_view.surroundings({name: batch[name][:, context - 1] for name in (IMAGE, POSE, SCENE)})
        state, moving = state.with_context(model.tool_view(around)), model.moving_context(around)
    for step in range(context, batch["is_first"].shape[1]):
        action = model.actor(state.features).mode if own_actions else batch["next_action"][:, step - 1]
        state = world_model.rssm.imagine_step(state, action, None).with_context(moving(action) if moving else None)
        latents.append(state.latent)
    decoded = world_model.decoder.decode(torch.stack(latents, 1), world_model.encoder)
    return {name: value.cpu().numpy() for name, value in decoded.items()}
