"""Ragged rollouts to tensors.

A `SeatSample` is one seat of one episode with all that the update needs; `collate` makes some rows a minibatch. Rows
are sorted by adapter, so each adapter has one span of them and one slice of the flat token and turn axes.

Axes in names: R rows, T positions, N action tokens, J turns of all rows (flat), K turns of one row, M reward terms.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from envs.core.task import Seat
from marl_coop.policy.layout import Layout, lay_out, padded_width
from marl_coop.policy.routed_lora import Spans, spans_of
from marl_coop.rollout.trajectory import Trajectory


@dataclass(slots=True, kw_only=True)
class SeatSample:
    """One seat of one episode. Arrays of length K hold one number per turn, those of length N one per sampled token.

    `terms_MK`: what each reward term gives for each turn, weights applied. `baseline_K`: what is taken from the return
    in place of GAE, nan where GAE stays. `old_logprobs_N`: of the trainer's own forward before it learns, where that
    and not the sampler's is where the ratio starts.
    """

    trace: Trajectory
    trainable: bool  # False: played, but not learned from, after an infrastructure fault or by who does not learn
    terms_MK: Tensor
    reference_N: Tensor | None = None
    old_logprobs_N: Tensor | None = None
    features_KF: Tensor | None = None
    values_K: Tensor | None = None
    baseline_K: Tensor | None = None
    advantages_K: Tensor | None = None
    returns_K: Tensor | None = None

    @property
    def rewards_K(self) -> Tensor:  # noqa: N802  axes are in names
        return self.terms_MK.sum(0)

    @property
    def seat(self) -> Seat:
        return self.trace.seat


@dataclass(frozen=True, slots=True, kw_only=True)
class Minibatch:
    """`tokens` and `turns` give each adapter's slice of the N axis and of the J axis; rows and columns are those of the
    layout."""

    layout: Layout
    spans: Spans
    prefix_hidden_RTH: Tensor | None
    rows_N: Tensor
    columns_N: Tensor
    turn_N: Tensor  # index on the J axis
    sampler_logprobs_N: Tensor
    prompt_ends_J: tuple[Tensor, Tensor]  # row and column of the last prompt token before each turn
    tokens: dict[str, slice]
    turns: dict[str, slice]

    @property
    def scored(self) -> dict[str, Any]:
        """What `TeamPolicy.score` reads of the chats, by its names."""
        return {
            "input_ids_RT": self.layout.input_ids_RT,
            "told": self.layout.told,
            "rows_N": self.rows_N,
            "columns_N": self.columns_N,
            "prefix_hidden_RTH": self.prefix_hidden_RTH,
        }


def micro_batches(rows: Sequence[SeatSample], tokens: int, padding_free: bool = False) -> list[list[SeatSample]]:
    """Parts of rows, of like length so that little is padded, each of at most `tokens` tokens with its padding.

    A chat that is longer is a part of its own. The rows of a part keep their order.
    """
    order = sorted(range(len(rows)), key=lambda r: -len(rows[r].trace.ids))  # the first of a part is its longest
    parts: list[list[int]] = []
    for r in order:
        if parts and _tokens([rows[i] for i in (*parts[-1], r)], padding_free) <= tokens:
            parts[-1].append(r)
        else:
            parts.append([r])
    return [[rows[r] for r in sorted(part)] for part in parts]


def _tokens(rows: Sequence[SeatSample], padding_free: bool) -> int:
    lengths = [len(row.trace.ids) for row in rows]
    return sum(lengths) if padding_free else len(lengths) * padded_width(max(lengths))


def collate(rows: Sequence[SeatSample], pad: int, device: torch.device, padding_free: bool = False) -> Minibatch:
    """Rows as tensors, laid out as `marl_coop.policy.layout.lay_out` does it.

    Raises:
        ValueError: the rows are not sorted by adapter.
    """
    adapters = [row.trace.adapter for row in rows]
    layout = lay_out([row.trace.ids for row in rows], pad, device, padding_free)
    row_N, column_N, turn_N, sampler_N, end_row_J, end_column_J = [], [], [], [], [], []
    tokens, turns = {}, {}
    for adapter, start, stop in spans_of(adapters):
        first_token, first_turn = len(row_N), len(end_row_J)
        for row, (r, column) in zip(rows[start:stop], layout.places[start:stop], strict=True):
            for turn in row.trace.turns:
                turn_N += [len(end_row_J)] * (turn.stop - turn.start)
                row_N += [r] * (turn.stop - turn.start)
                column_N += range(column + turn.start, column + turn.stop)
                sampler_N += turn.logprobs
                end_row_J.append(r)
                end_column_J.append(column + turn.start - 1)
        tokens[adapter], turns[adapter] = slice(first_token, len(row_N)), slice(first_turn, len(end_row_J))
    prefix_hidden_RTH = None
    prefixes = [row.trace.prefix_hidden_TH for row in rows if row.trace.prefix_hidden_TH is not None]
    if len(prefixes) == len(rows):  # who writes text has none
        prefix_hidden_RTH = prefixes[0].new_zeros(*layout.input_ids_RT.shape, prefixes[0].shape[-1])
        for (r, column), prefix_hidden_TH in zip(layout.places, prefixes, strict=True):
            prefix_hidden_RTH[r, column : column + len(prefix_hidden_TH)] = prefix_hidden_TH
    to = lambda values: torch.tensor(values, device=device)  # noqa: E731
    return Minibatch(
        layout=layout,
        spans=layout.spans(adapters),
        prefix_hidden_RTH=prefix_hidden_RTH,
        rows_N=to(row_N),
        columns_N=to(column_N),
        turn_N=to(turn_N),
        sampler_logprobs_N=to(sampler_N),
        prompt_ends_J=(to(end_row_J), to(end_column_J)),
        tokens=tokens,
        turns=turns,
    )


def stack_turns(rows: Sequence[SeatSample], name: str, turns: int) -> tuple[Tensor, Tensor]:
    """A per-turn attribute (..., K) of rows as (R, ..., turns), padded with 0, and the mask (R, turns) of those."""
    each = [getattr(row, name) for row in rows]
    values, mask_RK = torch.zeros(len(rows), *each[0].shape[:-1], turns), torch.zeros(len(rows), turns)
    for r, row in enumerate(rows):
        values[r, ..., : each[r].shape[-1]] = each[r]
        mask_RK[r, : each[r].shape[-1]] = float(row.trainable)
    return values, mask_RK
