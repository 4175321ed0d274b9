"""What `grouped` attention promises beyond one forward (tests/test_policy.py has that)."""

import pytest
import torch
from tiny import base_model

from marl_coop.policy import attention


def test_grouped_attention_with_gaps_and_a_cache_is_eager_attention():
    attention.register()
    model = base_model(50, seed=3)
    ids = torch.randint(0, 50, (3, 12), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, :5] = 0  # left padding
    mask[1, 4:6] = 0  # a gap
    found = {}
    for name in ("eager", "grouped"):
        model.set_attn_implementation(name)
        with torch.no_grad():
            first = model(ids[:, :9], attention_mask=mask[:, :9], use_cache=True)
            rest = model(ids[:, 9:], attention_mask=mask, past_key_values=first.past_key_values, use_cache=True)
        found[name] = torch.cat([first.logits, rest.logits], dim=1)
    seen = mask.bool()
    torch.testing.assert_close(found["grouped"][seen], found["eager"][seen], atol=1e-5, rtol=1e-4)


def test_attention_dropout_is_refused():
    heads = torch.zeros(1, 2, 3, 4)
    with pytest.raises(ValueError, match="use 'eager'"):
        attention.grouped_attention(None, heads, heads, heads, None, scaling=1.0, dropout=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_grouped_attention_keeps_nothing_of_every_pair_for_the_backward(dtype):
    mask = attention.eager_mask(2, 64, 64, dtype=dtype)
    kept = []
    query, key, value = (torch.randn(2, heads, 64, 8, dtype=dtype, requires_grad=True) for heads in (4, 2, 2))
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        attention.grouped_attention(None, query, key, value, mask, scaling=1.0)
    assert max(t.untyped_storage().nbytes() for t in kept if t.data_ptr() != mask.data_ptr()) <= query.nbytes


@pytest.mark.parametrize("keys", [7, attention.SHORT, attention.SHORT + 1])
def test_gradients_in_half_precision_are_those_of_full_precision_rounded(keys):
    generator = torch.Generator().manual_seed(0)
    rows, queries, size = 2 * attention.ROWS_AT_ONCE + 1, min(keys, 40), 16
    shapes = [(rows, 6, queries, size), (rows, 2, keys, size), (rows, 2, keys, size)]
    tensors = [torch.randn(shape, generator=generator).bfloat16() for shape in shapes]
    gradient = torch.randn(rows, queries, 6, size, generator=generator).bfloat16()
    position, slot = torch.arange(keys - queries, keys)[:, None], torch.arange(keys)
    padding = slot < torch.arange(rows)[:, None, None] % 3  # on the left
    hidden = (slot > position) | (padding & (slot != position))
    mask = torch.zeros(rows, 1, queries, keys).masked_fill_(hidden[:, None], torch.finfo(torch.bfloat16).min)
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        leaves = [tensor.to(dtype).requires_grad_() for tensor in tensors]
        output, _ = attention.grouped_attention(None, *leaves, mask.to(dtype), scaling=0.3)
        output.backward(gradient.to(dtype))
        found.append([output.detach().float()] + [leaf.grad.float() for leaf in leaves])
    for exact, rounded in zip(*found, strict=True):
        assert float((exact - rounded).norm() / exact.norm()) < 0.01


def test_one_query_at_a_time_in_half_precision_is_full_precision_rounded():
    generator = torch.Generator().manual_seed(0)
    rows, keys, size = 5, 33, 16
    tensors = [torch.randn(rows, heads, n, size, generator=generator) for heads, n in ((6, 1), (2, keys), (2, keys))]
    tensors = [tensor.bfloat16() for tensor in tensors]
    unseen = torch.arange(keys) > torch.arange(rows)[:, None] * 8
    mask = torch.zeros(rows, 1, 1, keys).masked_fill_(unseen[:, None, None], torch.finfo(torch.bfloat16).min)
    exact, rounded = (
        attention.grouped_attention(None, *(t.to(dtype) for t in tensors), mask.to(dtype), scaling=0.3)[0].float()
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert exact.shape == (rows, 1, 6, size)
    torch.testing.assert_close(rounded, exact, atol=0.03, rtol=0)
    torch.testing.assert_close(rounded[0], tensors[2][0, :, :1].float().repeat_interleave(3, 0).transpose(0, 1))
