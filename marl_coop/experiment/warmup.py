"""Format warm-up: supervised steps on scripted demonstrations, by `trl.SFTTrainer`.

A small model cannot follow the protocol zero-shot, and reinforcement cannot reward what never happens. The
demonstrators (`envs.scripted.play.Demonstrator`) take their own option, the partner's or the blend at random, so the
adapter learns how to answer and not what to choose. The result is kept on disk under a key of all that it depends on.
"""

import hashlib
import json
import os
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed
from trl import SFTConfig, SFTTrainer

from envs.scripted.demonstrator import Demonstrator
from envs.scripted.play import play
from marl_coop.config.schema import Config
from marl_coop.policy.loading import cache_folder, move_into_place
from marl_coop.rollout.chat import Chat

SEEDS = 2**40  # demonstrations are of tasks that neither training nor evaluation plays


class FormatTrainer(SFTTrainer):
    """`SFTTrainer` that makes logits for the labelled tokens alone, a quarter of all, on every device."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = torch.nn.functional.pad(inputs.pop("labels")[:, 1:], (0, 1), value=-100)  # of the next token
        labelled = labels != -100
        head = self.accelerator.unwrap_model(model).get_output_embeddings()
        only_labelled = head.register_forward_pre_hook(lambda _head, hidden: (hidden[0][labelled],))
        try:
            logits = model(**inputs, use_cache=False).logits
        finally:
            only_labelled.remove()
        loss = torch.nn.functional.cross_entropy(logits.float(), labels[labelled], reduction="sum") / num_items_in_batch
        return loss * self.accelerator.num_processes  # DDP takes the mean


def warm_adapter(
    config: Config, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, lora: LoraConfig, system: str
) -> Path:
    """Folder of the warmed-up adapter: from the cache, or trained now. `model` comes back without an adapter.

    The random state afterwards depends on the seed alone, so a run repeats whether or not the cache served it.
    """
    folder = cache_folder() / f"warmup-{_key(config, system)}"
    state = PartialState()
    found = folder.exists()
    state.wait_for_everyone()  # nobody may look after somebody has written
    if not found:
        _train(config, model, tokenizer, lora, system, folder)
    state.wait_for_everyone()
    set_seed(config.seed)
    return folder


def _train(config, model, tokenizer, lora, system, folder: Path) -> None:
    state = PartialState()
    chat, episodes = Chat(tokenizer, system), -(-config.warmup.steps * config.warmup.batch_size // len(config.policies))
    rows = [row for i in range(episodes) for row in _demonstrate(config, i, chat)]
    adapted = get_peft_model(model, lora)
    with tempfile.TemporaryDirectory() as scratch:
        arguments = _arguments(config, scratch, state.num_processes)
        dataset = Dataset.from_list(rows)
        FormatTrainer(model=adapted, args=arguments, train_dataset=dataset, processing_class=tokenizer).train()
    if state.is_main_process:
        finished = folder.with_name(f"{folder.name}.{os.getpid()}")
        adapted.save_pretrained(finished)
        move_into_place(finished, folder)
    adapted.unload()


def _arguments(config: Config, output_dir: str, processes: int) -> SFTConfig:
    size, at_once = config.warmup.batch_size, config.warmup.micro_batch_size * processes
    if size % at_once:
        problem = f"{size} chats cannot be shared by {processes} processes x {config.warmup.micro_batch_size} at once"
        raise config.error(("warmup", "batch_size"), f"{problem}: use a multiple of {at_once}")
    return SFTConfig(
        output_dir=output_dir,
        max_steps=config.warmup.steps,
        per_device_train_batch_size=config.warmup.micro_batch_size,
        gradient_accumulation_steps=size // at_once,
        learning_rate=config.warmup.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=max(1, config.warmup.steps // 10),
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=False,
        report_to="none",
        gradient_checkpointing=False,
        bf16=False,
        max_length=None,
        seed=config.seed,
        use_cpu=not torch.accelerator.is_available(),
        ddp_find_unused_parameters=False,
    )


def _key(config: Config, system: str) -> str:
    """Names all that the adapter depends on."""
    inputs = {
        "sections": config.model_dump(include={"model", "lora", "env", "warmup", "seed"}),
        "system": system,
        "versions": {name: version(name) for name in ("torch", "transformers", "trl", "peft")},
        "demonstrations": _demonstrations_text(config),
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]


def _demonstrations_text(config: Config) -> list[str]:
    """A few demonstrations, so that a change of the environment's texts makes a new key."""
    return [turn.observation + turn.reply for i in range(8) for turn in _episode(config, i).turns]


def _episode(config: Config, index: int):
    curriculum = config.make_curriculum()
    levels = curriculum.levels if curriculum else ({},)  # the format of all of them is taught
    env = config.make_env(**levels[index % len(levels)])
    partners = {
        seat: Demonstrator(np.random.default_rng((config.seed, index, i))) for i, seat in enumerate(env.possible_agents)
    }
    return play(env, partners, seed=SEEDS + index)


def _demonstrate(config: Config, index: int, chat: Chat) -> list[dict]:
    """One row per seat of a demonstrated episode; only what the seat itself wrote has labels."""
    episode, rows = _episode(config, index), []
    for seat in episode.seats:
        ids: list[int] = []
        labels: list[int] = []
        for turn in episode.turns_of(seat):
            ids = chat.follow(ids, turn.observation) if ids else chat.open(turn.observation)
            labels += [-100] * (len(ids) - len(labels))
            reply = chat.reply_ids(turn.reply)
            ids, labels = [*ids, *reply], [*labels, *reply]
        rows.append({"input_ids": ids, "labels": labels})
    return rows
