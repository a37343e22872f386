"""A causal transformer over tokens (pre-norm, ReLU, as in Decision Transformer), built to be fast on a CPU.

Two exact shortcuts: the last block computes only the tokens whose outputs are wanted (`rows`), and
tokens that many sequences share are computed once (`past`). A cache that slides with a window of
fixed length would not be exact, because what is kept had seen the tokens that left; there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from safe_policy_core.networks.linear import Linear, fixed, linear

Past = list[tuple[Tensor, Tensor]]
"""Keys and values of earlier tokens, for each block (B * heads, tokens, units / heads)."""
_EVERY = slice(None)


class Dropout(nn.Module):
    """Sets elements to zero with a probability of `rate` (to 1/256) and scales up the others.

    Eight decisions come from one random number of 64 bits: torch's own dropout draws one for each
    element, which took longer than the matrix products around it.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.level = round(rate * 256)

    def forward(self, value: Tensor) -> Tensor:
        if not self.training or not self.level:
            return value
        words = torch.empty((value.numel() + 7) // 8, dtype=torch.int64, device=value.device)
        random = words.random_(-2**63, None).view(torch.uint8)[:value.numel()]
        return value * (random >= self.level).view(value.shape) * (256 / (256 - self.level))


class CausalBlock(nn.Module):
    """Attention, then a feed-forward network of four times the width, each with a residual connection."""

    def __init__(self, units: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.feed_norm = nn.LayerNorm(units), nn.LayerNorm(units)
        self.project, self.merge = Linear(units, 3 * units), Linear(units, units)
        self.widen, self.narrow = Linear(units, 4 * units), Linear(4 * units, units)
        self.dropout = Dropout(dropout)

    def forward(self, tokens: Tensor, past: tuple[Tensor, Tensor] | None = None, mask: Tensor | None = None,
                rows: slice = _EVERY) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(B, T, units) -> outputs of the tokens `rows`, and the keys and values of the past and all T.

        past: keys and values that every token may attend to as well. mask: (past + T, past + T), 0 where
        a token may attend and -inf where not; None: each to itself and to those before it.
        """
        normed, (batch, length, units) = self.attention_norm(tokens), tokens.shape
        if rows == _EVERY:
            query, key, value = self._heads(self.project(normed), 3)
        else:
            weight, bias = self.project.weight, self.project.bias
            (query,) = self._heads(linear(normed[:, rows], weight[:units], bias[:units]), 1)
            key, value = self._heads(linear(normed, weight[units:], bias[units:]), 2)
            tokens = tokens[:, rows]
        if past is not None:
            key, value = torch.cat([past[0], key], 1), torch.cat([past[1], value], 1)
        mask = causal_mask(key.shape[1], tokens.device) if mask is None else mask
        # Batched products and a softmax: on a CPU a quarter faster than the fused kernel for heads this small.
        scores = torch.baddbmm(mask[-length:][rows], query, key.mT, alpha=query.shape[-1]**-0.5)
        mixed = torch.bmm(scores.softmax(-1), value).view(batch, self.heads, *query.shape[1:])
        tokens = tokens + self.dropout(self.merge(mixed.transpose(1, 2).flatten(2)))
        wide = self.widen(self.feed_norm(tokens)).relu()  # in place, on a view, autograd would copy
        return tokens + self.dropout(self.narrow(wide)), (key, value)

    def _heads(self, joined: Tensor, parts: int) -> tuple[Tensor, ...]:
        """(B, T, parts * units) -> `parts` of (B * heads, T, units / heads)."""
        batch, length, width = joined.shape
        size = width // (parts * self.heads)
        apart = joined.view(batch, length, parts, self.heads, size).permute(2, 0, 3, 1, 4)
        return apart.reshape(parts, batch * self.heads, length, size).unbind(0)


class CausalTransformer(nn.Module):
    """(B, T, units) embedded tokens -> (B, rows, units). Time is in the embeddings; positions are not numbered."""

    def __init__(self, units: int, heads: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.input_norm, self.output_norm = nn.LayerNorm(units), nn.LayerNorm(units)
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(CausalBlock(units, heads, dropout) for _ in range(layers))
        self.apply(_initialise)

    def forward(self, tokens: Tensor, past: Past | None = None, mask: Tensor | None = None, rows: slice = _EVERY
                ) -> Tensor:
        """Outputs of the tokens `rows`. past, mask: as for a block."""
        value, last = self.dropout(self.input_norm(tokens)), len(self.blocks) - 1
        for index, block in enumerate(self.blocks):
            value, _ = block(value, past[index] if past else None, mask, rows if index == last else _EVERY)
        return self.output_norm(value)

    def remember(self, tokens: Tensor) -> Past:
        """Keys and values of tokens that later ones, in any number of continuations, attend to."""
        value, past = self.dropout(self.input_norm(tokens)), Past()
        for block in self.blocks:
            # The last block is asked for no output: only its keys and values are used.
            value, own = block(value, rows=_EVERY if len(past) < len(self.blocks) - 1 else slice(0, 0))
            past.append(own)
        return past


class Continuation:
    """Outputs of tokens that come a few at a time, after keys and values of the earlier ones; without gradients.

    Exact as long as nothing leaves. The weights are taken out of their modules, the keys and values have
    their places from the beginning: with so few tokens, all around the products took three times as long as they.
    """

    def __init__(self, transformer: CausalTransformer, sequences: int, room: int) -> None:
        """room: tokens of a sequence at most."""
        self._ends = [(norm.weight, norm.bias) for norm in (transformer.input_norm, transformer.output_norm)]
        blocks = [block for block in transformer.blocks if isinstance(block, CausalBlock)]
        weight = self._ends[0][0]
        self._shape, self._heads, self._sequences = weight.shape, blocks[0].heads, sequences
        self._scale = (len(weight) / self._heads) ** -0.5
        self._known = weight.new_empty(len(blocks), 2, sequences * self._heads, room, len(weight) // self._heads)
        self._mask, self._length = causal_mask(room, weight.device), 0
        self._blocks = [self._functions(block, sequences * room, block is blocks[-1]) for block in blocks]

    def _functions(self, block: CausalBlock, rows: int, last: bool) -> tuple[Callable[[Tensor], Tensor], ...]:
        """Norm; query; key and value, with the query but in the last block, which has one for each sequence; merge;
        norm; feed-forward."""
        units, project = self._shape[0], block.project
        outputs, begin = (self._sequences, units) if last else (rows, 0)
        return (self._norm(block.attention_norm), fixed(project.weight[:units], project.bias[:units], outputs),
                fixed(project.weight[begin:], project.bias[begin:], rows),
                fixed(block.merge.weight, block.merge.bias, outputs), self._norm(block.feed_norm),
                fixed(block.widen.weight, block.widen.bias, outputs, "relu"),
                fixed(block.narrow.weight, block.narrow.bias, outputs))

    def _norm(self, norm: nn.LayerNorm) -> Callable[[Tensor], Tensor]:
        shape, gain, offset = self._shape, norm.weight, norm.bias
        return lambda value: functional.layer_norm(value, shape, gain, offset)

    def restart(self) -> None:
        """Forgets all tokens."""
        self._length = 0

    def extend(self, tokens: Tensor) -> Tensor:
        """(sequences, T, units) tokens that come next -> (sequences, units), the output of the last one."""
        begin, end = self._length, self._length + tokens.shape[1]
        self._length, units = end, self._shape[0]
        # One matrix of all tokens: a product of two axes has less to prepare.
        value = functional.layer_norm(tokens, self._shape, *self._ends[0]).view(-1, units)
        mask = self._mask[begin:end, :end]
        for number, (norm, ask, project, merge, feed, widen, narrow) in enumerate(self._blocks):
            normed = norm(value)
            if number < len(self._blocks) - 1:
                joined = self._apart(project(normed), 3)
                query = joined[0]
            else:
                last = normed.view(self._sequences, -1, units)[:, -1]
                value, mask = value.view(self._sequences, -1, units)[:, -1], mask[-1:]
                (query,), joined = self._apart(ask(last), 1), self._apart(project(normed), 2)
            known = self._known[number]
            known[:, :, begin:end] = joined[-2:]
            keys, values = known[:, :, :end].unbind(0)
            scores = torch.baddbmm(mask, query, keys.mT, alpha=self._scale)
            value = merge(self._together(torch.bmm(scores.softmax(-1), values))).add_(value)
            value = narrow(widen(feed(value))).add_(value)
        return functional.layer_norm(value, self._shape, *self._ends[1])

    def _apart(self, rows: Tensor, parts: int) -> Tensor:
        """(sequences * T, parts * units) -> (parts, sequences * heads, T, units / heads)."""
        size = self._shape[0] // self._heads
        apart = rows.view(self._sequences, -1, parts, self._heads, size).permute(2, 0, 3, 1, 4)
        return apart.reshape(parts, self._sequences * self._heads, -1, size)

    def _together(self, rows: Tensor) -> Tensor:
        """(sequences * heads, T, units / heads) -> (sequences * T, units)."""
        apart = rows.view(self._sequences, self._heads, -1, rows.shape[-1]).transpose(1, 2)
        return apart.reshape(-1, self._shape[0])


@lru_cache(maxsize=64)
def causal_mask(tokens: int, device: torch.device) -> Tensor:
    """(tokens, tokens): 0 where row i may attend to column j <= i, and -inf elsewhere."""
    with torch.inference_mode(False):  # kept from acting, it must serve training too
        return torch.full((tokens, tokens), -torch.inf, device=device).triu(1)


@lru_cache(maxsize=64)
def continuation_mask(past: int, continuations: int, length: int, device: torch.device) -> Tensor:
    """Mask for `continuations` of `length` tokens side by side in one sequence.

    (past + all, past + all), 0 and -inf; each continuation sees the past and itself, not the others.
    """
    with torch.inference_mode(False):
        mask = causal_mask(past + continuations * length, device).clone()
        number = torch.arange(continuations, device=device).repeat_interleave(length)
        mask[past:, past:].masked_fill_(number.unsqueeze(1) != number, -torch.inf)
    return mask


def _initialise(module: nn.Module) -> None:
    """GPT-2's: normal weights of 0.02, zero biases."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
