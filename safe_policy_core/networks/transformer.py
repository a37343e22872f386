"""A causal transformer over tokens (pre-norm, ReLU, as in Decision Transformer), built to be fast on a CPU.

Two exact shortcuts: the last block computes only the tokens whose outputs are wanted (`rows`), and
tokens that many sequences share are computed once (`Continuation.branch`). A cache that slides with a window of
fixed length would not be exact, because what is kept had seen the tokens that left; there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from safe_policy_core.networks.linear import Linear, fixed, linear

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

    def forward(self, tokens: Tensor, rows: slice = _EVERY) -> Tensor:
        """(B, T, units) -> outputs of the tokens `rows`; each attends to itself and to those before it."""
        normed, (batch, length, units) = self.attention_norm(tokens), tokens.shape
        if rows == _EVERY:
            query, key, value = self._heads(self.project(normed), 3)
        else:
            weight, bias = self.project.weight, self.project.bias
            (query,) = self._heads(linear(normed[:, rows], weight[:units], bias[:units]), 1)
            key, value = self._heads(linear(normed, weight[units:], bias[units:]), 2)
            tokens = tokens[:, rows]
        # Batched products and a softmax: on a CPU a quarter faster than the fused kernel for heads this small.
        scores = torch.baddbmm(causal_mask(length, tokens.device)[rows], query, key.mT, alpha=query.shape[-1]**-0.5)
        mixed = torch.bmm(scores.softmax(-1), value).view(batch, self.heads, *query.shape[1:])
        tokens = tokens + self.dropout(self.merge(mixed.transpose(1, 2).flatten(2)))
        wide = self.widen(self.feed_norm(tokens)).relu()  # in place, on a view, autograd would copy
        return tokens + self.dropout(self.narrow(wide))

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

    def forward(self, tokens: Tensor, rows: slice = _EVERY) -> Tensor:
        """Outputs of the tokens `rows`."""
        value, last = self.dropout(self.input_norm(tokens)), len(self.blocks) - 1
        for index, block in enumerate(self.blocks):
            value = block(value, rows if index == last else _EVERY)
        return self.output_norm(value)


_Block = tuple[Callable[[Tensor], Tensor], ...]
"""Norm; query; key and value, with the query but in the last block, which has one for each sequence; merge; norm;
widen; narrow."""


class Continuation:
    """Outputs of tokens that come a few at a time, after keys and values of the earlier ones; without gradients.

    Exact as long as nothing leaves. The weights are taken out of their modules, the keys and values have
    their places from the beginning: with so few tokens, all around the products took three times as long as they.
    """

    def __init__(self, transformer: CausalTransformer, sequences: int, room: int, branches: tuple[int, int] = (0, 0)
                 ) -> None:
        """room: tokens of a sequence at most. branches: how many of one sequence, and of how many tokens, `branch` is
        made fast for."""
        self._ends = [(norm.weight, norm.bias) for norm in (transformer.input_norm, transformer.output_norm)]
        blocks = [block for block in transformer.blocks if isinstance(block, CausalBlock)]
        weight = self._ends[0][0]
        self._shape, self._heads, self._sequences = weight.shape, blocks[0].heads, sequences
        self._scale = (len(weight) / self._heads) ** -0.5
        self._known = weight.new_empty(len(blocks), 2, self._heads * sequences, room, len(weight) // self._heads)
        self._mask, self._length = causal_mask(room, weight.device), 0
        self._blocks, self._branch_blocks = (
            [self._functions(block, count * tokens, count if block is blocks[-1] else None) for block in blocks]
            for count, tokens in ((sequences, room), branches))

    def _functions(self, block: CausalBlock, rows: int, last: int | None) -> _Block:
        """last: rows of the last block's outputs."""
        units, project = self._shape[0], block.project
        outputs, begin = (rows, 0) if last is None else (last, units)
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
        self._length, mask = end, self._mask[begin:end, :end]

        def attend(number: int, query: Tensor, own: Tensor) -> Tensor:
            known = self._known[number]
            known[:, :, begin:end] = own
            keys, values = known[:, :, :end].unbind(0)
            scores = torch.baddbmm(mask[-query.shape[1]:], query, keys.mT, alpha=self._scale)
            return torch.bmm(scores.softmax(-1), values)

        return self._through(tokens, self._blocks, attend)

    def branch(self, tokens: Tensor) -> Tensor:
        """(N, T, units) tokens of N continuations of the only sequence -> (N, units), the outputs of the last ones.

        None sees another, and nothing of them is kept.
        """
        past, mask = self._length, causal_mask(tokens.shape[1], tokens.device)

        def attend(number: int, query: Tensor, own: Tensor) -> Tensor:
            # The past is the same for all: one product for a head, in the place of one for each of its branches.
            asked, (keys, values) = query.view(self._heads, -1, query.shape[-1]), self._known[number, :, :, :past]
            earlier = torch.bmm(asked, keys.mT).view(*query.shape[:2], past).mul_(self._scale)
            among = torch.baddbmm(mask[-query.shape[1]:], query, own[0].mT, alpha=self._scale)
            weights = torch.cat([earlier, among], -1).softmax(-1)
            mixed = torch.bmm(weights[..., past:], own[1])
            return torch.baddbmm(mixed.view_as(asked), weights.view(*asked.shape[:2], -1)[..., :past], values)

        return self._through(tokens, self._branch_blocks, attend)

    def _through(self, tokens: Tensor, blocks: list[_Block], attend: Callable[[int, Tensor, Tensor], Tensor]) -> Tensor:
        """(N, T, units) -> (N, units), the outputs of the last tokens.

        attend: number of the block, query (heads * N, T or 1, units / heads), key and value (2, heads * N, T, ...) ->
        as the query.
        """
        count, units = len(tokens), self._shape[0]
        # One matrix of all tokens: a product of two axes has less to prepare.
        value = functional.layer_norm(tokens, self._shape, *self._ends[0]).view(-1, units)
        for number, (norm, ask, project, merge, feed, widen, narrow) in enumerate(blocks):
            normed = norm(value)
            if number < len(blocks) - 1:
                joined = self._apart(project(normed), count, 3)
                query = joined[0]
            else:
                last = normed.view(count, -1, units)[:, -1]
                value = value.view(count, -1, units)[:, -1]
                (query,), joined = self._apart(ask(last), count, 1), self._apart(project(normed), count, 2)
            mixed = attend(number, query, joined[-2:])
            together = mixed.view(self._heads, count, -1, mixed.shape[-1]).permute(1, 2, 0, 3).reshape(-1, units)
            value = merge(together).add_(value)
            value = narrow(widen(feed(value))).add_(value)
        return functional.layer_norm(value, self._shape, *self._ends[1])

    def _apart(self, rows: Tensor, count: int, parts: int) -> Tensor:
        """(count * T, parts * units) -> (parts, heads * count, T, units / heads)."""
        size = self._shape[0] // self._heads
        apart = rows.view(count, -1, parts, self._heads, size).permute(2, 3, 0, 1, 4)
        return apart.reshape(parts, self._heads * count, -1, size)


@lru_cache(maxsize=64)
def causal_mask(tokens: int, device: torch.device) -> Tensor:
    """(tokens, tokens): 0 where row i may attend to column j <= i, and -inf elsewhere."""
    with torch.inference_mode(False):  # kept from acting, it must serve training too
        return torch.full((tokens, tokens), -torch.inf, device=device).triu(1)


def _initialise(module: nn.Module) -> None:
    """GPT-2's: normal weights of 0.02, zero biases."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
