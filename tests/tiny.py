"""A language model of a few thousand weights, tokenizers built on the spot, and a task that such a model can learn."""

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from peft import LoraConfig
from pydantic import Field
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, PrinterCallback

import envs
from envs import CoopEnv
from envs.core.config import DesignConfig
from envs.core.design import Cells, draw_expert
from envs.core.env import SEATS, seats_of
from envs.core.episode import Outcome, Phase, StopReason
from envs.core.task import Decision, Task
from marl_coop.policy.routed_lora import spans_of
from marl_coop.policy.team import TeamPolicy
from marl_coop.ppo.config import MultiAgentPPOConfig
from marl_coop.ppo.trainer import MultiAgentPPOTrainer
from rewards import RewardStack
from rewards.base import RewardTerm

SYSTEM = "team"
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MARKS = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>", "unk_token": "[UNK]"}


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte: it reads and writes any text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return _of_bytes(core)


def text_tokenizer() -> PreTrainedTokenizerFast:
    """As `byte_tokenizer`, with a token for what is frequent in the environments' text: chats are a third as long."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=2000, initial_alphabet=alphabet, show_progress=False)
    core.train_from_iterator((file.read_text() for file in sorted(Path(envs.__path__[0]).rglob("*.py"))), trainer)
    return _of_bytes(core)


def _of_bytes(core: Tokenizer) -> PreTrainedTokenizerFast:
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, **MARKS)
    tokenizer.chat_template = CHATML
    return tokenizer


def word_tokenizer(words) -> PreTrainedTokenizerFast:
    """One token per word of a closed vocabulary."""
    vocabulary = [*dict.fromkeys(MARKS.values()), *words]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, **MARKS)
    tokenizer.chat_template = CHATML
    return tokenizer


def base_model(vocabulary: int, *, seed: int = 0, spread: float = 0.2, hidden: int = 32, layers: int = 2, **options):
    """A random transformer; `spread` is the standard deviation of its weights, large enough for varied replies."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        initializer_range=spread,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        **options,
    )
    return LlamaForCausalLM(config).eval()


def lora_config(r: int = 4, layers: list[int] | None = None) -> LoraConfig:
    """Adapters on every layer, or on the `layers` that are named."""
    modules = "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj".split()
    options = {"target_modules": modules, "layers_to_transform": layers, "task_type": "CAUSAL_LM"}
    return LoraConfig(r=r, lora_alpha=2 * r, **options)


def team(
    base, *, r: int = 4, layers=None, adapters=SEATS, critic_seats: int = 2, trained: bool = True, seed: int = 1
) -> TeamPolicy:
    """A team on `base`; `trained` gives the adapters effects of their own, which fresh ones (B = 0) do not have."""
    torch.manual_seed(seed)
    policy = TeamPolicy(base, lora_config(r, layers), adapters, critic_seats=critic_seats)
    if trained:
        with torch.no_grad():
            for name, parameter in policy.lm.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.1)
    return policy


def sample(engine, requests) -> list:
    """The engine's reply to each request, in order."""
    for request in requests:
        engine.submit(request)
    done = {}
    while len(done) < len(requests):
        done |= {generation.chat: generation for generation in engine.collect()}
    return [done[request.chat] for request in requests]


def weights(module) -> dict[str, torch.Tensor]:
    """Copies of all that is trained."""
    return {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}


# ------------------------------------------------------------------------------------------------------- a cue task

OPTIONS = ("red", "green")
CLAIMS = {option: f"Answer:{option}(80%)" for option in OPTIONS}  # one token that is a whole valid reply
WORDS = [
    "system",
    "user",
    "assistant",
    SYSTEM,
    "strong",
    "weak",
    "Partner:",
    "stance",
    "talk",
    "final",
    *CLAIMS.values(),
]


class CueConfig(DesignConfig):
    cells: Cells = Cells(both_right=1, one_right=2, both_wrong=0)
    cue_reliability: float = 1.0
    agents: Annotated[int, Field(ge=2, le=3)] = 2
    fault_every: int = 0


class CueTask(CoopEnv):
    """Each seat is told one of two options and whether its source is strong; at least one seat is told the right one.

    The brief is two words, an instruction one. U is the share of the seats that end with the right option. With a
    reliable cue the best team says what it was told and follows the strong source, so U = success = J = 1; a seat
    with a weak source cannot know better than its partner tells it. Every `fault_every`-th task ends in a sandbox
    fault.
    """

    Config = CueConfig

    def make_task(self, seed: int) -> Task:
        rng = np.random.default_rng(seed)
        right = self.config.cells.at(seed, len(self.seats))
        expert = self.seats[draw_expert(right, self.config.cue_reliability, rng)]
        true, false = (OPTIONS[i] for i in rng.permutation(2))
        decision = Decision(
            id="colour",
            options=OPTIONS,
            utility={option: float(option == true) for option in OPTIONS},
            belief={seat: true if is_right else false for seat, is_right in zip(self.seats, right, strict=True)},
            expert=expert,
            cue={seat: "strong" if seat == expert else "weak" for seat in self.seats},
        )
        return Task(
            id=f"cue-{seed}",
            family="cue",
            seed=seed,
            seats=self.seats,
            briefs={seat: f"{CLAIMS[decision.belief[seat]]} {decision.cue[seat]}" for seat in self.seats},
            decisions=(decision,),
            cell=dict(zip(self.seats, right, strict=True)),
        )

    def instruction(self, seat, phase):
        return str(phase)

    def finish(self, turns):
        held = {seat: turns[seat].stances[0].option if turns[seat].stances else None for seat in self.seats}
        (decision,) = self.task.decisions
        right = [decision.is_right(option) for option in held.values()]
        fault = self.config.fault_every and self.task.seed % self.config.fault_every == 0
        return (
            Outcome(
                utility=sum(right) / len(right),
                success=all(right),
                committed={seat: {"colour": option} for seat, option in held.items()},
            ),
            StopReason.SANDBOX_FAULT if fault else StopReason.FINISHED,
        )


class Candour(RewardTerm):
    """1 for a stance, and 1 for a message, that says just what the seat was told."""

    weight: float = 1.0

    def __call__(self, episode, agent):
        said = CLAIMS[episode.task.decisions[0].belief[agent]]
        return [float(turn.reply.strip() == said and turn.phase is not Phase.FINAL) for turn in episode.turns_of(agent)]


class Length(RewardTerm):
    """Pays each reply for its length, so that rewards vary with random replies; only `agent` where one is named."""

    weight: float = 1.0
    agent: str = ""

    def __call__(self, episode, agent):
        return [len(turn.reply) / 20 if self.agent in ("", agent) else 0.0 for turn in episode.turns_of(agent)]


def arguments(folder, **training) -> MultiAgentPPOConfig:
    quick = {
        "num_updates": 1,
        "episodes_per_update": 8,
        "num_mini_batches": 1,
        "max_stance_tokens": 2,
        "max_message_tokens": 3,
        "max_final_tokens": 4,
        "learning_rate": 1e-2,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "seed": 0,
    }
    return MultiAgentPPOConfig(output_dir=str(folder), **(quick | training))


def cue_trainer(
    folder,
    *,
    policy=None,
    policies=None,
    rewards=None,
    env=None,
    callbacks=None,
    on_rollouts=None,
    engine=None,
    **training,
):
    """A trainer of a tiny team on `CueTask`; `training` are fields of its configuration, and so is the name of an
    engine."""
    if isinstance(engine, str):
        training["engine"], engine = engine, None
    seats = seats_of((env or {}).get("agents", 2))
    tokenizer = word_tokenizer(WORDS)
    args = arguments(folder, **training)
    if policy is None:
        policy = team(base_model(len(tokenizer)), adapters=seats, critic_seats=args.critic_seats(len(seats)))
    trainer = MultiAgentPPOTrainer(
        model=policy,
        args=args,
        make_env=lambda: CueTask(**(env or {})),
        rewards=RewardStack(tuple(rewards or [Length()])),
        processing_class=tokenizer,
        policies=policies or {seat: seat for seat in seats},
        system=SYSTEM,
        callbacks=callbacks,
        on_rollouts=on_rollouts,
        engine=engine,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


@torch.no_grad()
def trainer_logprobs(policy, request, reply):
    """The log-probability of each token of a reply by the forward that is trained."""
    ids = [*request.ids, *reply.ids]
    hidden_RTH = policy.hidden(spans_of([request.adapter]), torch.tensor([ids]), use_cache=False)
    logprobs_TV = (policy.logits(hidden_RTH[0]) / request.temperature).log_softmax(-1)
    return [float(logprobs_TV[i - 1, ids[i]]) for i in range(len(request.ids), len(ids))]
