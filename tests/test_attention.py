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
