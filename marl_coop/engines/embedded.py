"""The embedded engine: samples with the training model itself, no server, all that is asked in one batch.

Each row keeps its key-value cache from turn to turn, so a turn costs only its new tokens. Rows of one batch get
observations and replies of different lengths; a token stands in the cache where it stands in its chat, and padding
where later tokens will, so that a row computes the same as it would alone. Sampling inverts the cumulative distribution
at a uniform number that belongs to the row and the token: a reply depends on its request's seed and not on who else is
in the batch.

Axes in names: R rows, T positions, V vocabulary.
"""

import itertools
from collections.abc import Hashable, Sequence

import numpy as np
import torch
from torch import Tensor

from marl_coop.engines import EngineError, Generation, Request
from marl_coop.policy import sharding
from marl_coop.policy.compat import SlotCache, attention_mask
from marl_coop.policy.routed_lora import spans_of, unchanging_adapters
from marl_coop.policy.team import TeamPolicy
from marl_coop.profiling import phase

Row = tuple[Hashable, str | None]  # a chat and its adapter: what one adapter computed is nothing to another


def _row_of(request: Request) -> Row:
    return request.chat, request.adapter


class EmbeddedEngine:
    """Samples all that was submitted in one batch when it is collected, so it is best handed all that is ready.

    Args:
        policy: the model to sample from. Its adapters are shared, so new ones are in force at once; `load_adapters`
            drops what the old ones computed.
        max_chats: chats to play at once, which bounds the memory of their caches; None: no bound.
    """

    def __init__(self, policy: TeamPolicy, max_chats: int | None = None):
        self.policy, self.max_chats = policy, max_chats
        self._version = 0
        self._pending: dict[Hashable, Request] = {}
        self._batches: list[_Batch] = []

    def submit(self, request: Request) -> None:
        if request.chat in self._pending:
            raise ValueError(f"submit: the chat {request.chat!r} was asked already; collect its reply first")
        longest, most = len(request.ids) + request.max_tokens, self.policy.max_positions
        if longest > most:
            raise EngineError(
                f"submit: the chat {request.chat!r} may come to {longest} tokens, and the model has {most} positions: "
                "fewer rounds, shorter replies, or a model with more"
            )
        self._pending[request.chat] = request

    def load_adapters(self, version: int) -> None:
        self.reset_cache()
        self._version = version
        sharding.gather(self.policy)

    def reset_cache(self) -> None:
        self._pending, self._batches = {}, []

    def sleep(self) -> None:
        """Leave each process its part of a base that they share out; else there is nothing to give back, for the model
        is the one that learns."""
        sharding.scatter(self.policy)

    @torch.no_grad()
    def collect(self) -> list[Generation]:
        requests, self._pending = {_row_of(r): r for r in self._pending.values()}, {}
        if not requests:
            return []
        training = self.policy.training
        self.policy.eval()
        with unchanging_adapters(self.policy):
            batch = self._batch(requests)
            done = batch.generate([requests[row] for row in batch.rows], self._version)
        self.policy.train(training)
        return done

    def _batch(self, requests: dict[Row, Request]) -> "_Batch":
        """A batch of just these rows, with what is cached of each: the one of before where it is still the same, else
        a new one."""
        for batch in self._batches:
            if requests.keys() == set(batch.rows) and all(map(batch.begins, requests.values())):
                return batch
        cached = {r: (b, i) for b in self._batches for i, r in enumerate(b.rows) if r in requests}  # the newest wins
        cached = {row: place for row, place in cached.items() if place[0].begins(requests[row])}
        # rows of one adapter side by side, and of like length, so that little is padded
        order = sorted(requests, key=lambda row: (str(row[1]), len(requests[row].ids)))
        new = _Batch(self.policy, order, [cached.get(row) for row in order])
        self._batches = [*(b for b in self._batches if any(row not in requests for row in b.rows)), new]
        return new


class _Batch:
    """Some rows, the cache of them and the ids that it holds, per row.

    Args:
        places: for each row the batch and the index there that its cache is copied from; None: it begins anew.
    """

    def __init__(self, policy: TeamPolicy, rows: Sequence[Row], places: "Sequence[tuple[_Batch, int] | None]"):
        self.policy, self.rows = policy, list(rows)
        self.ids: list[list[int]] = [[*place[0].ids[place[1]]] if place else [] for place in places]
        # pieces (T, H) and where they start; a copy shares the list, so that what either reads is kept for both
        self.prefixes: list[list[tuple[int, Tensor]]] = [p[0].prefixes[p[1]] if p else [] for p in places]
        self.cache = SlotCache.gathered([(place[0].cache, place[1]) if place else None for place in places])

    def begins(self, request: Request) -> bool:
        """Whether what is cached of the request's row begins its ids, which go on: the last is read anew."""
        ids = self.ids[self.rows.index(_row_of(request))]
        return len(ids) < len(request.ids) and request.ids[: len(ids)] == ids

    def generate(self, requests: list[Request], version: int) -> list[Generation]:
        """A reply per row. Once half of the replies have ended, the others go on in a batch of their own; what
        that feeds is fed to this batch in the next turn, together with what is then new."""
        uniforms = [np.random.default_rng(r.seed).random(r.max_tokens) for r in requests]
        replies: list[tuple[list[int], list[float]]] = [([], []) for _ in requests]
        batch, running = self, list(range(len(requests)))  # index in `requests` of each row of `batch`
        new = [r.ids[len(ids) :] for r, ids in zip(requests, self.ids, strict=True)]
        for step in itertools.count():
            temperature_R1 = torch.tensor([[requests[i].temperature] for i in running], device=self.policy.device)
            with phase("decode" if step else "prefill", tokens=sum(map(len, new))):
                logits_RV = batch._feed(new) / temperature_R1
            uniform_R = torch.tensor([uniforms[i][min(step, requests[i].max_tokens - 1)] for i in running])
            token_R, logprob_R = (values.tolist() for values in sample_by_inversion(logits_RV, uniform_R))
            open_rows, new = [], [[] for _ in running]
            for row, i in enumerate(running):
                request, (ids, logprobs) = requests[i], replies[i]
                if len(ids) == request.max_tokens or (ids and ids[-1] in request.stop_ids):
                    continue  # ended before
                ids.append(token_R[row])
                logprobs.append(logprob_R[row])
                if len(ids) < request.max_tokens and token_R[row] not in request.stop_ids:
                    open_rows.append(row)
                    new[row] = [token_R[row]]
            if not open_rows:
                break
            if len(open_rows) <= len(running) // 2:
                batch = _Batch(self.policy, [batch.rows[row] for row in open_rows], [(batch, r) for r in open_rows])
                running, new = [running[row] for row in open_rows], [new[row] for row in open_rows]
        return [
            Generation(
                chat=request.chat,
                ids=ids,
                logprobs=logprobs,
                finish_reason=request.ending(ids),
                version=version,
                prefix_hidden_TH=torch.cat([piece for _, piece in prefix]) if prefix else None,
            )
            for request, (ids, logprobs), prefix in zip(requests, replies, self.prefixes, strict=True)
        ]

    def _feed(self, new: list[list[int]]) -> Tensor:
        """Put each row's new ids into the cache; logits (R, V) after the last of them."""
        policy, lengths, starts = self.policy, list(map(len, new)), list(map(len, self.ids))
        input_ids = np.zeros((len(new), max(lengths)), dtype=np.int64)
        for row, ids in enumerate(new):
            input_ids[row, : len(ids)] = ids
            self.ids[row].extend(ids)
        steps = np.arange(max(lengths))
        slots = np.array(starts)[:, None] + steps
        positions = np.where(steps < np.array(lengths)[:, None], slots, 0)  # padding may go beyond what a model has
        input_ids_RQ, slot_RQ, position_RQ = (
            torch.from_numpy(a).to(policy.device) for a in (input_ids, slots, positions)
        )
        self.cache.place(slot_RQ)
        hidden_RQH = policy.hidden(
            spans_of([adapter for _, adapter in self.rows]),
            input_ids_RQ,
            position_ids=position_RQ,
            attention_mask=attention_mask(policy.config, slot_RQ, self.cache.slots, policy.dtype),
            cache=self.cache,
            use_cache=True,
        )
        if policy.prefix_hidden_RTH is not None:
            for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
                if length:
                    self._keep_prefix(row, start, policy.prefix_hidden_RTH[row, :length])
        last_R = torch.tensor(lengths, device=policy.device).sub(1).clamp(min=0)  # of rows that have ended any will do
        return policy.logits(hidden_RQH[torch.arange(len(new), device=policy.device), last_R])

    def _keep_prefix(self, row: int, start: int, piece_TH: Tensor) -> None:
        pieces = self.prefixes[row]
        while pieces and pieces[-1][0] >= start:  # a part has read it before
            pieces.pop()
        pieces.append((start, piece_TH))


def sample_by_inversion(logits_RV: Tensor, uniform_R: Tensor) -> tuple[Tensor, Tensor]:
    """Token (R,) at which the cumulative distribution passes `uniform_R`, and its log-probability (R,)."""
    logprobs_RV = logits_RV.log_softmax(-1)
    cumulative_RV = logprobs_RV.exp().cumsum(-1)
    total_R1 = cumulative_RV[:, -1:]
    below_R1 = torch.nextafter(total_R1, torch.zeros_like(total_R1))  # a number just under 1 may round to 1
    target_R1 = torch.minimum(uniform_R.to(total_R1).unsqueeze(-1) * total_R1, below_R1)
    token_R1 = torch.searchsorted(cumulative_RV, target_R1, right=True).clamp(max=logits_RV.shape[-1] - 1)
    return token_R1.squeeze(-1).cpu(), logprobs_RV.gather(-1, token_R1).squeeze(-1).cpu()
