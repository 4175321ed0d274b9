"""A step of TRL's `GRPOTrainer` whose `rollout_func` plays our environment with `generate`; one policy for all seats.

A group of generations is an episode, one for each seat, which costs what a group costs. TRL is treated kindly: one
optimisation step where ours makes several, so it needs no pass for old log-probabilities, no gradient checkpointing,
and micro-batches of as many tokens as ours.
"""

import os
import warnings
from typing import Any

from datasets import Dataset
from transformers import PrinterCallback, ProgressCallback
from trl import GRPOConfig, GRPOTrainer  # pyright: ignore[reportPrivateImportUsage]

from contenders.common import Job, Played, Result, Stopwatch, peak_gib, play_first
from contenders.generate import GenerateEngine, load_peft, make_runner

ONE = "default"  # the adapter's name that GRPOTrainer knows


def run(job: Job) -> Result:
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    warnings.simplefilter("ignore")
    experiment, model = load_peft(job, ("agent_0",), name=ONE)
    args, played, tokenizer = experiment.args, Played.load(job.played), experiment.tokenizer
    engine = GenerateEngine(model, played, rows_at_once=1000, pad=experiment.chat.eos)
    runner, watch = make_runner(experiment, engine), Stopwatch()
    seats, rows = len(experiment.env.possible_agents), len(played.rows)

    def rollout(prompts: list, trainer: Any) -> dict[str, list]:
        model.eval()
        with watch:
            rollouts = play_first(runner, experiment.config.seed, len(prompts) // seats)
        model.train()
        out: dict[str, list] = {"prompt_ids": [], "completion_ids": [], "logprobs": [], "env_mask": [], "earned": []}
        for one in rollouts:
            breakdown = experiment.rewards.score(one.episode)
            for seat, trace in one.traces.items():
                first = trace.turns[0].start
                mask, logprobs = [0] * len(trace.ids), [0.0] * len(trace.ids)
                for turn in trace.turns:
                    mask[turn.start : turn.stop] = [1] * (turn.stop - turn.start)
                    logprobs[turn.start : turn.stop] = turn.logprobs
                out["prompt_ids"].append(trace.ids[:first])
                out["completion_ids"].append(trace.ids[first:])
                out["logprobs"].append(logprobs[first:])
                out["env_mask"].append(mask[first:])
                out["earned"].append(breakdown.total(seat))
        seen = [a + b for a, b in zip(out["prompt_ids"], out["completion_ids"], strict=True)]
        if seen != [row.trace.ids for row in played.rows]:
            raise RuntimeError("GRPOTrainer learns from other chats than ours")
        return out

    width = max(len(row.trace.ids) for row in played.rows)
    at_once = max(n for n in range(1, rows + 1) if rows % n == 0 and n <= max(1, args.micro_batch_tokens // width))
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=lambda earned, **_: earned,
        args=GRPOConfig(
            output_dir=str(job.folder / "grpo"),
            per_device_train_batch_size=at_once,
            gradient_accumulation_steps=rows // at_once,
            num_generations=seats,
            max_completion_length=width,
            max_steps=1,
            learning_rate=args.learning_rate,
            temperature=args.temperature,
            beta=args.kl_coef,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            seed=args.seed,
        ),
        train_dataset=Dataset.from_list([{"prompt": str(i)} for i in range(rows // seats)]),
        processing_class=tokenizer,
        rollout_func=rollout,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    with Stopwatch() as whole:
        trainer.train()
    return Result(watch.seconds, whole.minus(watch), engine.tokens, played.chat_tokens, peak_gib())
