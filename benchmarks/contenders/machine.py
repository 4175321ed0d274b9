"""What the machine can do: matrix products at the model's shapes, and reading memory."""

import time
from collections import Counter
from collections.abc import Callable

import torch
from torch import nn

from contenders.common import Job, load_experiment

TOKENS = 2048  # of the product that is measured; more bring nothing
READ_BYTES = 2**29


def run(job: Job) -> dict[str, float]:
    """`flops` and `bytes` per CPU second and per wall-clock second, and the bytes of the weights that a step reads."""
    experiment = load_experiment(job)
    base = experiment.base
    linear = [module for module in base.modules() if isinstance(module, nn.Linear)]
    shapes = Counter((module.in_features, module.out_features) for module in linear)
    dtype, wall, cpu, flops = base.dtype, 0.0, 0.0, 0.0
    for (inputs, outputs), times in shapes.items():
        x, weight = torch.randn(TOKENS, inputs).to(dtype), torch.randn(outputs, inputs).to(dtype)
        took = _fastest(lambda x=x, weight=weight: nn.functional.linear(x, weight))
        wall, cpu = wall + times * took[0], cpu + times * took[1]
        flops += times * 2 * TOKENS * inputs * outputs
    memory = torch.ones(READ_BYTES // 4)
    read_wall, read_cpu = _fastest(memory.sum)
    config = base.config
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    size = base.dtype.itemsize
    return {
        "flops_wall": flops / wall,
        "flops_cpu": flops / cpu,
        "bytes_wall": READ_BYTES / read_wall,
        "bytes_cpu": READ_BYTES / read_cpu,
        "weight_bytes": float(sum(module.weight.numel() * size for module in linear)),
        "cache_bytes": 2.0 * config.num_hidden_layers * config.num_key_value_heads * head * size,
    }


@torch.no_grad()
def _fastest(work: Callable[[], object], repeats: int = 7) -> tuple[float, float]:
    """Least wall-clock and least CPU seconds of some repeats."""
    took = []
    for _ in range(repeats + 1):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        took.append((time.perf_counter() - wall, time.process_time() - cpu))
    return min(t for t, _ in took[1:]), min(t for _, t in took[1:])
