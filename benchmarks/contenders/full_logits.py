"""Learning as one does it with PEFT: an agent at a time, `set_adapter` between them, logits of all tokens.

The loss is that of ours without a critic: clipped ratio, and the k3 KL to the adapters that it began with. The
micro-batches are made as ours are, by length and under the same budget of tokens, from the rows of one agent.
"""

import numpy as np
import torch
from torch import Tensor
from trl.trainer.utils import selective_log_softmax

from contenders.common import UPDATE, Job, Played, Result, Stopwatch, peak_gib
from contenders.generate import load_peft
from marl_coop.ppo import losses
from marl_coop.ppo.batch import SeatSample, collate, micro_batches


def logprobs_of(model, batch, temperature: float) -> Tensor:
    """Log-probabilities (N,) of the tokens that were sampled."""
    logits_RTV = model(input_ids=batch.layout.input_ids_RT, use_cache=False, **batch.layout.told).logits
    all_RT = selective_log_softmax(logits_RTV[:, :-1].float() / temperature, batch.layout.input_ids_RT[:, 1:])
    return all_RT[batch.rows_N, batch.columns_N - 1]


def run(job: Job) -> Result:
    experiment, model = load_peft(job, ("agent_0", "agent_1"))
    args, played = experiment.args, Played.load(job.played)
    agents = tuple(model.peft_config)
    for agent in agents:
        model.load_adapter(str(job.folder / agent), f"{agent}-start")
    trained = [p for name, p in model.named_parameters() if any(f".{agent}." in name for agent in agents)]
    for parameter in trained:
        parameter.requires_grad_(True)
    optimiser = torch.optim.AdamW(trained, lr=args.learning_rate)
    pad, device = experiment.chat.eos, torch.device("cpu")
    episodes = args.episodes_per_update
    order = np.random.default_rng((args.seed, UPDATE, 0)).permutation(episodes)
    with Stopwatch() as watch:
        for part in np.array_split(order, args.num_mini_batches):
            for agent in agents:
                mine = _rows(played.rows, part, agent, episodes)
                tokens = sum(turn.stop - turn.start for row in mine for turn in row.trace.turns)
                for rows in micro_batches(mine, args.micro_batch_tokens):
                    batch = collate(rows, pad, device)
                    reference_N = None
                    if args.kl_coef:
                        model.set_adapter(f"{agent}-start")
                        with torch.no_grad():
                            reference_N = logprobs_of(model, batch, args.temperature)
                    model.set_adapter(agent)
                    logprobs_N = logprobs_of(model, batch, args.temperature)
                    advantages_J = torch.cat([a for row in rows if (a := row.advantages_K) is not None])
                    policy_N, _ = losses.policy_loss(
                        logprobs_N, batch.sampler_logprobs_N, advantages_J[batch.turn_N], args.clip_low, args.clip_high
                    )
                    if reference_N is not None:
                        policy_N = policy_N + args.kl_coef * losses.k3_kl(logprobs_N, reference_N)
                    (policy_N.sum() / tokens).backward()
            torch.nn.utils.clip_grad_norm_(trained, args.max_grad_norm)
            optimiser.step()
            optimiser.zero_grad()
    return Result(update=watch.seconds, update_tokens=played.chat_tokens, peak_gib=peak_gib())


def _rows(rows: list[SeatSample], part: np.ndarray, agent: str, episodes: int) -> list[SeatSample]:
    """Of the episodes of a minibatch, an agent's; `rows` has those of an episode side by side."""
    seats = len(rows) // episodes
    return [row for i in part for row in rows[i * seats : (i + 1) * seats] if row.trace.adapter == agent]
