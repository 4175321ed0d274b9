"""The embedded engine: samples with the training model itself, no server, all chats in one batch.

Each row keeps its key-value cache from turn to turn, so a turn costs only its new tokens. Rows of one batch get
observations and replies of different lengths; the gaps are masked and every token has its own position id, so that
a row computes the same as it would alone. Sampling inverts the cumulative distribution at a uniform number that
belongs to the row and the token: a reply depends on its request's seed and not on who else is in the batch.

Axes in names: R rows, T positions, V vocabulary.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from marl_coop.engines import Generation, Request
from marl_coop.policy.compat import new_cache
from marl_coop.policy.routed_lora import Span, spans_of
from marl_coop.policy.team import TeamPolicy


class EmbeddedEngine:
    """Args:
    policy: the model to sample from.
    eos: id of the token that ends a reply.
    temperature: of the sampling, > 0.
    max_rows: rows per batch; bounds the memory of the caches.
    """

    def __init__(self, policy: TeamPolicy, eos: int, temperature: float, max_rows: int):
        self.policy, self.eos, self.temperature, self.max_rows = policy, eos, temperature, max_rows
        self._batches: list[_Batch] = []

    def reset_cache(self) -> None:
        self._batches = []

    @torch.no_grad()
    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        training = self.policy.training
        self.policy.eval()
        if not self._continues(requests):
            # rows of one adapter side by side, and of like length, so that little is padded
            order = sorted(requests, key=lambda r: (str(r.adapter), len(r.ids)))
            groups = [order[i : i + self.max_rows] for i in range(0, len(order), self.max_rows)]
            self._batches = [_Batch(self, [(r.chat, r.adapter) for r in rows]) for rows in groups]
        by_chat = {(r.chat, r.adapter): r for r in requests}
        done = {}
        for batch in self._batches:
            done |= batch.generate([by_chat[chat] for chat in batch.chats])
        self.policy.train(training)
        return [done[request.chat] for request in requests]

    def _continues(self, requests: Sequence[Request]) -> bool:
        known = {chat: ids for batch in self._batches for chat, ids in zip(batch.chats, batch.ids, strict=True)}
        asked = {(r.chat, r.adapter): r.ids for r in requests}
        return asked.keys() == known.keys() and all(asked[chat][: len(ids)] == ids for chat, ids in known.items())


class _Batch:
    """Some chats (each with its adapter), the cache of them and the ids that it holds, per row."""

    def __init__(self, engine: EmbeddedEngine, chats: list):
        self.engine, self.chats = engine, chats
        self.ids: list[list[int]] = [[] for _ in chats]
        self.cache = new_cache()
        self.mask_RT = torch.zeros(len(chats), 0, dtype=torch.long, device=engine.policy.device)
        self.prefixes: list[list[tuple[int, Tensor]]] = [[] for _ in chats]  # pieces (T, H) and where they start

    def only(self, rows: list[int]) -> "_Batch":
        """A batch of some of the rows, with a copy of their cache."""
        part = _Batch(self.engine, [self.chats[row] for row in rows])
        part.ids, part.mask_RT = [[*self.ids[row]] for row in rows], self.mask_RT[rows]
        part.prefixes = [self.prefixes[row] for row in rows]  # the same lists: what the part reads is kept for both
        for i, layer in enumerate(self.cache.layers):
            part.cache.update(layer.keys[rows], layer.values[rows], i)
        return part

    def generate(self, requests: list[Request]) -> dict:
        """A reply per chat. Once half of the replies have ended, the others go on in a batch of their own; what
        that feeds is fed to this batch in the next turn, together with what is then new."""
        uniforms = {r.chat: np.random.default_rng(r.seed).random(r.max_tokens) for r in requests}
        replies = {r.chat: Generation(ids=[], logprobs=[]) for r in requests}
        batch, running = self, requests
        new = [r.ids[len(ids) :] for r, ids in zip(requests, self.ids, strict=True)]
        for step in itertools.count():
            logits_RV = batch._feed(spans_of([r.adapter for r in running]), new)
            uniform_R = torch.tensor([uniforms[r.chat][min(step, r.max_tokens - 1)] for r in running])
            token_R, logprob_R = (values.tolist() for values in _sample(logits_RV, uniform_R))
            open_rows, new = [], [[] for _ in running]
            for row, request in enumerate(running):
                reply = replies[request.chat]
                if len(reply.ids) == request.max_tokens or reply.ids[-1:] == [self.engine.eos]:
                    continue  # ended before
                reply.ids.append(token_R[row])
                reply.logprobs.append(logprob_R[row])
                if len(reply.ids) < request.max_tokens and token_R[row] != self.engine.eos:
                    open_rows.append(row)
                    new[row] = [token_R[row]]
            if not open_rows:
                return {r.chat: self._with_prefix(row, replies[r.chat]) for row, r in enumerate(requests)}
            if len(open_rows) <= len(running) // 2:
                batch = batch.only(open_rows)
                running, new = [running[row] for row in open_rows], [new[row] for row in open_rows]

    def _feed(self, spans: tuple[Span, ...], new: list[list[int]]) -> Tensor:
        """Put each row's new ids into the cache; logits (R, V) after the last of them."""
        policy, width = self.engine.policy, max(map(len, new))
        input_ids = np.full((len(new), width), self.engine.eos)
        positions = np.zeros((len(new), width), dtype=np.int64)
        mask = np.zeros((len(new), width), dtype=np.int64)
        for row, ids in enumerate(new):
            if ids:  # left-padded, so that the last column is each row's last token
                input_ids[row, -len(ids) :] = ids
                positions[row, -len(ids) :] = np.arange(len(self.ids[row]), len(self.ids[row]) + len(ids))
                mask[row, -len(ids) :] = 1
                self.ids[row].extend(ids)
        tensors = [torch.from_numpy(a).to(policy.device) for a in (input_ids, positions, mask)]
        self.mask_RT = torch.cat([self.mask_RT, tensors[2]], dim=1)
        hidden_RTH = policy.hidden(
            spans,
            tensors[0],
            position_ids=tensors[1],
            attention_mask=self.mask_RT,
            cache=self.cache,
            use_cache=True,
        )
        if policy.prefix_hidden_RTH is not None:
            for row, ids in enumerate(new):
                if ids:
                    self._keep_prefix(row, len(self.ids[row]) - len(ids), policy.prefix_hidden_RTH[row, -len(ids) :])
        return policy.logits(hidden_RTH[:, -1]) / self.engine.temperature

    def _keep_prefix(self, row: int, start: int, piece_TH: Tensor) -> None:
        pieces = self.prefixes[row]
        while pieces and pieces[-1][0] >= start:  # a part has read it before
            pieces.pop()
        pieces.append((start, piece_TH))

    def _with_prefix(self, row: int, reply: Generation) -> Generation:
        pieces = [piece for _, piece in self.prefixes[row]]
        return replace(reply, prefix_hidden_TH=torch.cat(pieces)) if pieces else reply


def _sample(logits_RV: Tensor, uniform_R: Tensor) -> tuple[Tensor, Tensor]:
    """Token (R,) at which the cumulative distribution passes `uniform_R`, and its log-probability (R,)."""
    logprobs_RV = logits_RV.log_softmax(-1)
    cumulative_RV = logprobs_RV.exp().cumsum(-1)
    total_R1 = cumulative_RV[:, -1:]
    below_R1 = torch.nextafter(total_R1, torch.zeros_like(total_R1))  # a number just under 1 may round to 1
    target_R1 = torch.minimum(uniform_R.to(total_R1).unsqueeze(-1) * total_R1, below_R1)
    token_R1 = torch.searchsorted(cumulative_RV, target_R1, right=True).clamp(max=logits_RV.shape[-1] - 1)
    return token_R1.squeeze(-1).cpu(), logprobs_RV.gather(-1, token_R1).squeeze(-1).cpu()
