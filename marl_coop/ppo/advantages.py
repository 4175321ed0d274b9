"""How much better than expected each turn went, by a critic, by the other plays of its task, or by a silent replay.

Axes in names: R rows (one seat of one episode), K turns of a row, M reward terms.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import partial

import torch
from accelerate import Accelerator
from torch import Tensor

from envs.core.task import Seat
from marl_coop.ppo import losses
from marl_coop.ppo.batch import SeatSample, stack_turns
from marl_coop.ppo.config import MultiAgentPPOConfig
from marl_coop.ppo.metrics import MeanMetrics
from marl_coop.ppo.processes import most, total


def add_advantages(
    episodes: Sequence[Mapping[Seat, SeatSample]],
    args: MultiAgentPPOConfig,
    terms: Sequence[str],
    logged: Collection[str],
    metrics: MeanMetrics,
    accelerator: Accelerator,
) -> None:
    """Give rows their advantages, and their returns, which a critic is taught; without a critic, values are the means
    that returns are compared with.

    Args:
        episodes: this process's share of an update, with all seats in each; the plays of a task side by side.
        args: see `MultiAgentPPOConfig`.
        terms: names of the reward terms, in the order of the rows' axis M.
        logged: the terms whose share of the advantages is logged.
        metrics: takes what is measured.
        accelerator: its processes share the update.
    """
    longest = most(accelerator, max([1, *(len(row.rewards_K) for rows in episodes for row in rows.values())]))
    for seat in episodes[0]:
        rows = [rows[seat] for rows in episodes]
        by = _by_group if args.advantage == "group" else _by_critic
        parts_MRK, mask_RK = by(rows, longest, args, metrics, partial(total, accelerator))
        shares_M = losses.advantage_shares(parts_MRK, mask_RK, partial(total, accelerator))
        for term, share in zip(terms, shares_M.tolist(), strict=True):
            if term in logged:
                metrics.add(f"{seat}/advantage_share/{term}", share)


def _by_group(
    rows: list[SeatSample], longest: int, args: MultiAgentPPOConfig, metrics: MeanMetrics, total: losses.Total
) -> tuple[Tensor, Tensor]:
    """A seat's rows against the other plays of their tasks; each term's part of the advantages, and the mask."""
    rewards_RK, mask_RK = stack_turns(rows, "rewards_K", longest)
    terms_RMK, _ = stack_turns(rows, "terms_MK", longest)
    size = args.plays
    returns_RK = losses.returns_to_go(rewards_RK, args.gamma) * mask_RK
    centred_RK = losses.group_advantages(returns_RK, mask_RK, size)
    match args.scale_rewards:
        case "group":
            advantages_RK = losses.group_advantages(returns_RK, mask_RK, size, scale=True)
        case "batch":
            advantages_RK = losses.whiten(centred_RK, mask_RK, total)
        case _:
            advantages_RK = centred_RK
    played = mask_RK.amax(1).unflatten(0, (-1, size)).sum(1) > 1
    equal = (centred_RK == 0).unflatten(0, (-1, size)).all(1).all(1)
    metrics.add(f"{rows[0].seat}/frac_zero_std", float(losses.masked_mean(equal.float(), played)), float(played.sum()))
    _put(rows, advantages_RK, returns_RK, returns_RK - centred_RK)
    of_terms = (losses.returns_to_go(term_RK, args.gamma) for term_RK in terms_RMK.transpose(0, 1))
    return torch.stack([losses.group_advantages(term_RK, mask_RK, size) for term_RK in of_terms]), mask_RK


def _by_critic(
    rows: list[SeatSample], longest: int, args: MultiAgentPPOConfig, metrics: MeanMetrics, total: losses.Total
) -> tuple[Tensor, Tensor]:
    """A seat's rows by GAE, and its messages by their silent replay where they have one; each term's part of GAE, and
    the mask."""
    rewards_RK, mask_RK = stack_turns(rows, "rewards_K", longest)
    terms_RMK, _ = stack_turns(rows, "terms_MK", longest)
    values_RK, _ = stack_turns(rows, "values_K", longest)
    seat = rows[0].seat
    advantages_RK, returns_RK = losses.gae(rewards_RK, values_RK, mask_RK, args.gamma, args.lam)
    metrics.add(f"{seat}/explained_variance", losses.explained_variance(values_RK, returns_RK, mask_RK, total))
    if args.advantage == "counterfactual":
        baselines_RK, _ = stack_turns(rows, "baseline_K", longest)
        credit_RK = losses.returns_to_go(rewards_RK, args.gamma) - baselines_RK
        credit_RK = credit_RK.masked_fill(mask_RK == 0, torch.nan)
        advantages_RK = torch.where(credit_RK.isnan(), advantages_RK, credit_RK)
        metrics.add(f"{seat}/message_credit", float(credit_RK.nanmean()), cases=int((~credit_RK.isnan()).sum()))
    _put(rows, losses.whiten(advantages_RK, mask_RK, total), returns_RK, values_RK)
    none_RK = torch.zeros_like(rewards_RK)
    parts = [losses.gae(term_RK, none_RK, mask_RK, args.gamma, args.lam)[0] for term_RK in terms_RMK.transpose(0, 1)]
    return torch.stack(parts), mask_RK


def _put(rows: list[SeatSample], advantages_RK: Tensor, returns_RK: Tensor, values_RK: Tensor) -> None:
    """Give each row its turns' numbers."""
    for r, row in enumerate(rows):
        turns = len(row.rewards_K)
        row.advantages_K, row.returns_K = advantages_RK[r, :turns], returns_RK[r, :turns]
        row.values_K = values_RK[r, :turns]
