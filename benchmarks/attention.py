"""Attention of `attn_implementation: grouped` against `sdpa` and `eager`, on the quickstart's model and this CPU.

    python benchmarks/attention.py

prints tokens per second of a forward pass over chats and of decoding one token per chat, each as a ratio to `sdpa`.
"""

import argparse
import sys
import time
from collections.abc import Callable

import torch

from marl_coop.cli import run_script
from marl_coop.cli.arguments import count
from marl_coop.config.schema import Config
from marl_coop.experiment import setup
from marl_coop.policy.allocator import keep_freed_memory
from marl_coop.policy.compat import SlotCache, attention_mask, cache_keyword
from marl_coop.policy.loading import load_base


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Median time of some repeats after one to warm up."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return sorted(times[1:])[repeats // 2]


class Chats:
    """Chats that are fed to a decoder piece by piece, with one cache."""

    def __init__(self, model):
        self.model, self.decoder, self.cache, self.length = model, model.get_decoder(), SlotCache(), 0
        self.keyword = cache_keyword(self.decoder)

    def feed(self, ids_RT) -> None:
        positions_RT = torch.arange(self.length, self.length + ids_RT.shape[1]).expand(len(ids_RT), -1)
        self.length += ids_RT.shape[1]
        self.cache.place(positions_RT)
        self.decoder(
            input_ids=ids_RT,
            position_ids=positions_RT,
            attention_mask=attention_mask(self.model.config, positions_RT, self.cache.slots, self.model.dtype),
            use_cache=True,
            **{self.keyword: self.cache},
        )


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=Config().model.name_or_path, help="a folder or name (default: %(default)s)")
    parser.add_argument("--chats", type=count, default=64, help="in a batch (default: 64)")
    parser.add_argument("--tokens", type=count, default=160, help="of each chat (default: 160)")
    parser.add_argument("--repeats", type=count, default=5, help="of each measurement (default: 5)")
    args = parser.parse_args()
    keep_freed_memory()
    model, _ = load_base(args.model, setup.dtype_of(Config()))
    decoder = model.get_decoder()
    ids = torch.randint(model.config.vocab_size, (args.chats, args.tokens), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    speeds = {}
    for name in ("sdpa", "eager", "grouped"):
        model.set_attn_implementation(name)
        forward = seconds(lambda: decoder(input_ids=ids, attention_mask=mask, use_cache=False), args.repeats)
        chats = Chats(model)
        chats.feed(ids)
        decode = seconds(lambda chats=chats: chats.feed(ids[:, :1]), args.repeats)
        speeds[name] = ids.numel() / forward, args.chats / decode
    for name, (forward, decode) in speeds.items():
        ratios = forward / speeds["sdpa"][0], decode / speeds["sdpa"][1]
        print(f"{name:8} forward {forward:6.0f} tokens/s ({ratios[0]:.2f}x)  decode {decode:5.0f} ({ratios[1]:.2f}x)")


if __name__ == "__main__":
    sys.exit(run_script(main))
