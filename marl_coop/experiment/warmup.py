"""Format warm-up: supervised steps on scripted demonstrations, by `trl.SFTTrainer`.

A small model cannot follow the protocol zero-shot, and reinforcement cannot reward what never happens. The
demonstrators (`envs.scripted.demonstrator`) take their own option, the partner's or the blend at random, so the
adapter learns how to answer and not what to choose. The result is kept on disk under a key of the content of all that
it depends on: weights, tokens, numbers; not of where they lie.
"""

import hashlib
import json
import tempfile
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TypedDict, cast

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed
from trl import SFTConfig, SFTTrainer  # pyright: ignore[reportPrivateImportUsage]  (exported, but lazily)

from envs.core.env import CoopEnv
from envs.core.episode import Turn
from envs.core.seeds import Stream, task_seed
from envs.core.task import Seat
from envs.scripted.demonstrator import Demonstrator
from envs.scripted.play import Shown, shown
from marl_coop.experiment.callbacks import StepProgress, show_progress
from marl_coop.policy.adapters import identify, write_adapter
from marl_coop.policy.compat import keep_to_one_gpu, with_layer_class
from marl_coop.policy.loading import cache_folder, filled
from marl_coop.policy.routed_lora import RoutedLinear, Routing, spans_of
from marl_coop.rollout.chat import Chat
from marl_coop.runs.checkpoints import writing

ADAPTER = "default"  # the name that PEFT writes without a folder of its own


class Row(TypedDict):
    """One seat's chat of a demonstration: token ids, and as many labels, -100 where the seat did not write."""

    input_ids: list[int]
    labels: list[int]


class FormatTrainer(SFTTrainer):
    """`SFTTrainer` of a routed adapter (`marl_coop.policy.routed_lora`: it computes in the base's dtype) that makes
    logits for the labelled tokens alone, a quarter of all, on every device."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        assert num_items_in_batch is not None, "transformers counts the labels of a batch"
        labels = torch.nn.functional.pad(inputs.pop("labels")[:, 1:], (0, 1), value=-100)  # of the next token
        labelled = labels != -100
        head = self.accelerator.unwrap_model(model).get_output_embeddings()
        only_labelled = head.register_forward_pre_hook(lambda _head, hidden: (hidden[0][labelled],))
        try:
            with Routing(spans_of([ADAPTER] * len(labels))):
                logits = model(**inputs, use_cache=False).logits
        finally:
            only_labelled.remove()
        loss = torch.nn.functional.cross_entropy(logits.float(), labels[labelled], reduction="sum") / num_items_in_batch
        return loss * self.accelerator.num_processes  # DDP takes the mean


def demonstrated(environments: Sequence[CoopEnv], index: int, seed: int) -> dict[Seat, list[Shown]]:
    """The turns of each seat in the demonstration of an index, of one of the environments in turn."""
    env = environments[index % len(environments)]
    partners = {
        seat: Demonstrator(np.random.default_rng((seed, index, i))) for i, seat in enumerate(env.possible_agents)
    }
    turns: dict[Seat, list[Shown]] = {seat: [] for seat in partners}
    for turn in shown(env, lambda seat: partners[seat].reply(env, seat), task_seed(Stream.WARM_UP, 0, index)):
        turns[turn.seat].append(turn)
    return turns


def demonstrate(environments: Sequence[CoopEnv], chat: Chat, episodes: int, seed: int) -> list[Row]:
    """One row per seat of each demonstrated episode; only what the seat itself wrote has labels."""
    played = (demonstrated(environments, index, seed) for index in range(episodes))
    return [row_of(chat, turns) for seats in played for turns in seats.values()]


def row_of(chat: Chat, turns: Iterable[Turn | Shown]) -> Row:
    """The chat of a seat's turns; what it wrote itself has labels."""
    ids: list[int] = []
    labels: list[int] = []
    for turn in turns:
        ids = chat.follow(ids, turn.observation) if ids else chat.open(turn.observation)
        labels += [-100] * (len(ids) - len(labels))
        reply = chat.reply_ids(turn.reply)
        ids, labels = [*ids, *reply], [*labels, *reply]
    return Row(input_ids=ids, labels=labels)


def warm_adapter(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    lora: LoraConfig,
    rows: Sequence[Row],
    *,
    steps: int,
    batch_size: int,
    micro_batch_size: int,
    learning_rate: float,
    seed: int,
) -> Path:
    """Folder of the warmed-up adapter: from the cache, or trained now where a machine has it not. `model` comes back
    without an adapter.

    The random state afterwards depends on the seed alone, so a run repeats whether or not the cache served it.

    Args:
        rows: the demonstrations.
        steps: optimisation steps.
        batch_size: chats of a step over all processes, a multiple of processes x `micro_batch_size`.
        micro_batch_size: chats that are in memory at once.

    Raises:
        CheckpointError: the cache cannot take it.
    """
    state = PartialState()
    sizes = {"batch_size": batch_size, "micro_batch_size": micro_batch_size, "processes": state.num_processes}
    numbers = {"steps": steps, "learning_rate": learning_rate, "seed": seed} | sizes
    folder = cache_folder() / f"warmup-{cache_key(model, lora, rows, numbers)}"
    if not all(gather_object([folder.exists()])):  # nobody may look after somebody has written
        with tempfile.TemporaryDirectory() as scratch:
            arguments = SFTConfig(
                output_dir=scratch,
                max_steps=steps,
                per_device_train_batch_size=micro_batch_size,
                gradient_accumulation_steps=batch_size // (micro_batch_size * state.num_processes),
                learning_rate=learning_rate,
                lr_scheduler_type="linear",
                warmup_steps=max(1, steps // 10),
                save_strategy="no",
                logging_strategy="no",
                report_to="none",
                log_level_replica="passive",
                gradient_checkpointing=False,
                bf16=False,
                max_length=None,
                seed=seed,
                use_cpu=not torch.accelerator.is_available(),
                ddp_find_unused_parameters=False,
            )
            keep_to_one_gpu(arguments)
            adapted = get_peft_model(model, with_layer_class(lora, RoutedLinear), adapter_name=ADAPTER)
            dataset = Dataset.from_list([dict(row) for row in rows])
            trainer = FormatTrainer(model=adapted, args=arguments, train_dataset=dataset, processing_class=tokenizer)
            show_progress(trainer, StepProgress("warm-up"))
            trainer.train()
        if state.is_local_main_process:  # a cache of each machine, unless they share one
            with writing("the warmed-up adapter", folder.parent), filled(folder) as finished:
                write_adapter(
                    adapted, ADAPTER, cast(LoraConfig, adapted.peft_config[ADAPTER]), identify(model), finished
                )
        adapted.unload()
    state.wait_for_everyone()
    set_seed(seed)
    return folder


def cache_key(model: PreTrainedModel, lora: LoraConfig, rows: Sequence[Row], numbers: dict[str, float]) -> str:
    """Names the content of all that the adapter depends on.

    The rows are what a tokenizer, its template and an environment's texts come to.
    """
    content = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        content.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        content.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    shape = model.config.to_dict() | {"_name_or_path": None}
    packages = {name: version(name) for name in ("torch", "transformers", "trl", "peft")}
    plain = {"model": shape, "lora": lora.to_dict(), "rows": list(rows), "numbers": numbers, "packages": packages}
    content.update(json.dumps(plain, sort_keys=True, default=_plain).encode())
    return content.hexdigest()[:16]


def _plain(value: object) -> object:
    """PEFT keeps names of modules in sets, and both libraries values of other types that say what they are."""
    return sorted(value) if isinstance(value, set) else str(value)
