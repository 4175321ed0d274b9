"""Which launch is for which model and how many GPUs, by the estimates of `marl-coop doctor`: docs/scaling.md has some.

    python benchmarks/launches.py --config configs/base.yaml

Models have the shapes of Qwen2.5 and no weights; how long chats are is measured with the configuration's own tokenizer.
"""

import argparse
import sys

from marl_coop.cli import run_script
from marl_coop.cli.arguments import add_configuration, set_environment
from marl_coop.config.schema import Config, load_config

SHAPES = {  # of Qwen2.5: layers, hidden size, intermediate size, heads, heads of keys and values, tied head
    "1.5B": (28, 1536, 8960, 12, 2, True),
    "7B": (28, 3584, 18944, 28, 4, False),
    "14B": (48, 5120, 13824, 40, 8, False),
}
GPUS, MEMORY_GIB = (1, 2, 8), (24, 48, 80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_configuration(parser)
    args = parser.parse_intermixed_args()
    set_environment()
    compare(load_config(args.config, args.overrides))


def compare(config: Config) -> None:
    from transformers import Qwen2Config

    from marl_coop.experiment import memory, setup
    from marl_coop.experiment.doctor import CONTEXT_GIB
    from marl_coop.experiment.libraries import quiet_libraries
    from marl_coop.rollout import limits

    quiet_libraries()
    args = setup.training_arguments(config)
    base, tokenizer = setup.load_model(config)
    env, _ = setup.make_environments(config)
    chat = setup.make_chat(config, base, tokenizer, env)
    setup.settle_limits(config, args, base, tokenizer)
    lengths = limits.measure(env, chat)
    bf16 = config.model_copy(update={"model": config.model.model_copy(update={"dtype": "bfloat16"})})
    small = config.model_copy(update={"model": bf16.model.model_copy(update={"load_in_4bit": True})})
    print("| model | GPU | " + " | ".join(f"{gpus} GPUs" if gpus > 1 else "one GPU" for gpus in GPUS) + " |")
    print("|---" * (2 + len(GPUS)) + "|")
    for name, (layers, hidden, inner, heads, pairs, tied) in SHAPES.items():
        shape = Qwen2Config(
            vocab_size=152064,
            hidden_size=hidden,
            intermediate_size=inner,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=pairs,
            tie_word_embeddings=tied,
        )
        works = {gpus: memory.work_of(bf16, args, lengths, gpus) for gpus in GPUS}
        sizes = {n: [memory.sizes_of(c, args, shape, works[n], True) for c in (bf16, small)] for n in GPUS}
        for gib in MEMORY_GIB:
            capacity = (gib - CONTEXT_GIB) * memory.GIB
            found = [memory.choose_launch(sizes[n][0], sizes[n][1], works[n], n, capacity) for n in GPUS]
            print(f"| {name} | {gib} GiB | {' | '.join(map(told, found))} |")
        for gpus in (1, 8):
            for shared in (False, True)[:gpus]:
                said = memory.phases(sizes[gpus][0], works[gpus], gpus, shared)
                print(f"    {gpus} {shared}", {phase.name: round(phase.total / memory.GIB, 1) for phase in said})


def told(launch) -> str:
    if not launch.fits:
        return "none"
    return " ".join([f"`{launch.file}`" if launch.file else "`train.py`", *(f"`{key}`" for key in launch.keys)])


if __name__ == "__main__":
    sys.exit(run_script(main))
