import pytest
import torch

from safe_policy_core.networks.transformer import CausalTransformer, Continuation, Dropout

UNITS, TOLERANCE = 16, 1e-5


@pytest.fixture
def transformer() -> CausalTransformer:
    torch.manual_seed(0)
    model = CausalTransformer(UNITS, heads=4, layers=3, dropout=0.1).eval()
    for parameter in model.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    return model


def test_the_future_does_not_change_the_past(transformer: CausalTransformer) -> None:
    tokens = torch.randn(2, 9, UNITS)
    changed = tokens.clone()
    changed[:, 5:] = torch.randn(2, 4, UNITS)
    before, after = transformer(tokens), transformer(changed)
    assert torch.allclose(before[:, :5], after[:, :5], atol=TOLERANCE)
    assert (before[:, 5:] - after[:, 5:]).abs().amax(-1).min() > 0.01


def test_equals_torchs_own_encoder(transformer: CausalTransformer) -> None:
    """The same weights in torch's pre-norm encoder layers give the same outputs."""
    tokens = torch.randn(3, 7, UNITS)
    value = transformer.input_norm(tokens)
    for block in transformer.blocks:
        layer = torch.nn.TransformerEncoderLayer(UNITS, 4, 4 * UNITS, dropout=0.0, batch_first=True, norm_first=True)
        layer.load_state_dict({
            "self_attn.in_proj_weight": block.project.weight, "self_attn.in_proj_bias": block.project.bias,
            "self_attn.out_proj.weight": block.merge.weight, "self_attn.out_proj.bias": block.merge.bias,
            "linear1.weight": block.widen.weight, "linear1.bias": block.widen.bias,
            "linear2.weight": block.narrow.weight, "linear2.bias": block.narrow.bias,
            "norm1.weight": block.attention_norm.weight, "norm1.bias": block.attention_norm.bias,
            "norm2.weight": block.feed_norm.weight, "norm2.bias": block.feed_norm.bias})
        value = layer(value, src_mask=torch.nn.Transformer.generate_square_subsequent_mask(7), is_causal=True)
    assert torch.allclose(transformer(tokens), transformer.output_norm(value), atol=TOLERANCE)


def test_wanted_rows_equal_the_full_pass(transformer: CausalTransformer) -> None:
    tokens = torch.randn(2, 12, UNITS)
    assert torch.allclose(transformer(tokens, rows=slice(2, None, 4)), transformer(tokens)[:, 2::4], atol=TOLERANCE)


def test_masks_made_while_acting_serve_training_too() -> None:
    transformer, tokens = CausalTransformer(UNITS, 4, 1, 0.0), torch.randn(1, 11, UNITS)
    with torch.inference_mode():
        transformer(tokens)
    transformer(tokens).sum().backward()


@pytest.mark.parametrize("shared", [0, 1, 8])
def test_branches_equal_whole_sequences(transformer: CausalTransformer, shared: int) -> None:
    """Five continuations of a common past, once more after others, equal five whole sequences."""
    earlier, ends = torch.randn(1, shared, UNITS), torch.randn(5, 3, UNITS)
    continuation = Continuation(transformer, 1, 8, branches=(5, 3))
    with torch.inference_mode():
        expected = transformer(torch.cat([earlier.expand(5, -1, -1), ends], 1))[:, -1]
        if shared:
            continuation.extend(earlier)
        for order in ([3, 1, 0, 4, 2], [0, 1, 2, 3, 4]):
            torch.testing.assert_close(continuation.branch(ends[order]), expected[order], atol=1e-5, rtol=1e-5)


def test_dropout_keeps_the_mean_and_only_acts_in_training() -> None:
    torch.manual_seed(0)
    dropout, ones = Dropout(0.1), torch.ones(1001, 100)
    dropped = dropout(ones)
    assert (dropped == 0).float().mean() == pytest.approx(26 / 256, abs=0.005)
    assert dropped.mean() == pytest.approx(1, abs=0.005)
    assert not torch.equal(dropped, dropout(ones))
    assert torch.equal(dropout.eval()(ones), ones)


def test_dropout_has_the_gradient_of_what_it_kept() -> None:
    value = torch.ones(64, requires_grad=True)
    dropped = Dropout(0.5)(value)
    dropped.sum().backward()
    assert torch.equal(value.grad, dropped)


def test_extended_passes_equal_the_full_pass(transformer: CausalTransformer) -> None:
    tokens = torch.randn(3, 12, UNITS, generator=torch.Generator().manual_seed(0))
    continuation = Continuation(transformer, 3, 14)
    with torch.inference_mode():
        expected = transformer(tokens)
        for _ in range(2):  # also after it has forgotten others
            continuation.restart()
            for begin, end in ((0, 5), (5, 6), (6, 12)):
                torch.testing.assert_close(continuation.extend(tokens[:, begin:end]), expected[:, end - 1], atol=1e-5,
                                           rtol=1e-5)
