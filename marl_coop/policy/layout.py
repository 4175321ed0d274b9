"""Chats of unequal length as the tensors of one forward: padded to a row each, or one behind the other in one row.

Without padding nothing is computed for nothing, and what keeps the chats apart are their positions, which begin anew
with each: transformers makes a mask of that, and flash attention the borders of its blocks (TRL calls it
`padding_free` too). Other implementations of attention then compute every pair of tokens of the whole row.

Axes in names: R rows, T positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from marl_coop.policy.routed_lora import Spans, spans_of

PAD_TO = 16  # widths are rounded up to a multiple: few shapes keep the memory of CPU kernels flat


def padded_width(length: int) -> int:
    """Positions of a row whose longest chat has so many tokens."""
    return -(-length // PAD_TO) * PAD_TO


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the tokens of some chats lie. `told` tells a model which belong together, by its names: "attention_mask"
    (R, T) where there is padding, "position_ids" (1, T) where there is none. `places` is row and column of the first
    token of each chat, `borders` are those of the chats in what adapters are routed by: rows, or positions of one row.
    """

    input_ids_RT: Tensor
    told: dict[str, Any]
    places: tuple[tuple[int, int], ...]
    borders: tuple[int, ...]

    def spans(self, adapters: Sequence[str | None]) -> Spans:
        """Spans of the batch, given each chat's adapter.

        Raises:
            ValueError: the chats of an adapter are not contiguous.
        """
        spans = spans_of(adapters)
        return tuple(span._replace(start=self.borders[span.start], stop=self.borders[span.stop]) for span in spans)


def lay_out(chats: Sequence[Sequence[int]], pad: int, device: torch.device, padding_free: bool = False) -> Layout:
    """Tensors of one or more chats of token ids; `pad` is any token id (padding is masked).

    >>> laid = lay_out([[5, 6, 7], [8, 9]], 0, torch.device("cpu"), padding_free=True)
    >>> laid.input_ids_RT.tolist(), laid.told["position_ids"].tolist(), laid.places
    ([[5, 6, 7, 8, 9]], [[0, 1, 2, 0, 1]], ((0, 0), (0, 3)))
    >>> laid.spans(["a", "b"])
    (Span(adapter='a', start=0, stop=3), Span(adapter='b', start=3, stop=5))
    """
    if padding_free:
        borders = [0]
        for ids in chats:
            borders.append(borders[-1] + len(ids))
        ids_RT = torch.tensor([[i for ids in chats for i in ids]], device=device)
        positions_RT = torch.cat([torch.arange(len(ids), device=device) for ids in chats])[None]
        places = tuple((0, start) for start in borders[:-1])
        return Layout(ids_RT, {"position_ids": positions_RT}, places, tuple(borders))
    ids_RT = torch.full((len(chats), padded_width(max(map(len, chats)))), pad)
    mask_RT = torch.zeros_like(ids_RT)
    for r, ids in enumerate(chats):
        ids_RT[r, : len(ids)] = torch.tensor(ids)
        mask_RT[r, : len(ids)] = 1
    places = tuple((r, 0) for r in range(len(chats)))
    told = {"attention_mask": mask_RT.to(device)}
    return Layout(ids_RT.to(device), told, places, tuple(range(len(chats) + 1)))
