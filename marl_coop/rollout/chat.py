"""Chats as token ids: the only file that touches the tokenizer's template.

A seat's chat is append-only. What a policy sampled stays the ids that it sampled; what the environment says is put
between them. So nothing is ever tokenised twice, a cache of earlier turns stays valid, and the log-probabilities in
training belong to exactly the tokens that were sampled. A template that rewrites earlier turns (one that drops old
thoughts, or moves the system text to the newest message) is followed in the turn that is being opened.
"""

import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

from transformers import PreTrainedTokenizerBase

from envs.core.fields import ArgumentError
from envs.core.tokens import one_line

_FIRST, _REPLY, _SECOND, _SYSTEM = "<<first>>", "<<reply>>", "<<second>>", "<<system>>"
_EXCHANGE = ({"role": "user", "content": "<<asked>>"}, {"role": "assistant", "content": "<<answered>>"})


class Chat:
    """The pieces that a chat template puts around a user's text and an assistant's reply.

    A template that has no system role gets the system text in front of the first user message.

    Args:
        tokenizer: with a chat template.
        system: the system message, the same for every seat.
        stops: ids that end a reply beside the tokenizer's `eos_token_id`, as a model's `generation_config` has them.
        end_of_turn: the token to put after a reply that has none; None: the one that the template puts there.
        template_options: further arguments of the template, such as {"enable_thinking": False}.
        vocabulary: tokens that the model knows; None: all that the tokenizer has.

    Raises:
        ArgumentError: `end_of_turn` is no token, or the template has no use for an option.
        ValueError: the tokenizer has no chat template, or one that fails, that does not repeat the texts that it is
            given, that does not open the reply which is asked for, or whose end of turn is no token, or it writes
            tokens that the model does not know; the message is one line.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        system: str,
        *,
        stops: Iterable[int] = (),
        end_of_turn: str | None = None,
        template_options: Mapping[str, Any] | None = None,
        vocabulary: int | None = None,
    ):
        self.tokenizer, self.system = tokenizer, system
        self._name = f"the chat template of {tokenizer.name_or_path!r}"
        self._options = dict(template_options or {})
        if tokenizer.chat_template is None:
            raise ValueError(
                f"the tokenizer {tokenizer.name_or_path!r} has no chat template; use an instruction-tuned model"
            )
        for option in self._options:
            if not re.search(rf"\b{re.escape(str(option))}\b", str(tokenizer.chat_template)):
                raise ArgumentError(f"{self._name} reads no such argument: leave it out", ("template_options", option))
        self._has_system_role = self._keeps_system_role()
        opening, to_reply = self._around(self._render(self._first_messages(_FIRST)), _FIRST)
        before_reply, to_user = self._around_reply(_SECOND)
        if before_reply.strip() != to_reply.strip() and not self._has_generation_prompt():
            raise ValueError(
                f"{self._name} has no generation prompt: it begins a reply with {before_reply!r} and asks for one with "
                f"{to_reply!r}; give it its add_generation_prompt"
            )
        if self._around_reply(_SECOND, earlier=_EXCHANGE) != (before_reply, to_user):
            raise ValueError(
                f"{self._name} does not mark all turns alike, as one that numbers them; use another template"
            )
        to_user, again = self._around(to_user, _SECOND)
        added = tokenizer.added_tokens_decoder.items()
        self._normalized = frozenset(i for i, token in added if token.normalized and i != tokenizer.unk_token_id)
        self._opening, self._to_user = len(opening), len(to_user)  # where what somebody wrote begins
        self._to_reply = {_FIRST: len(to_reply), _SECOND: len(again)}
        self.eos, end_text = self._end_of_turn(to_user, end_of_turn)
        end = self._ids(end_text)
        self._skipped = len(end)  # the end of a reply, which stands in the text for what follows it
        declared = [tokenizer.eos_token_id, *end, *stops]
        self.stops = frozenset({self.eos} | {i for i in declared if i is not None})
        self._before_reply = to_reply
        self._lead = before_reply.removeprefix(to_reply) if before_reply.startswith(to_reply) else ""
        self._lead_text = self._decoded(self._ids(self._lead))
        self._cut_at = {mark: self._inside(mark) for mark in self._role_marks(to_user, to_reply)}
        shortest_first = "|".join(map(re.escape, sorted(self._cut_at, key=len)))
        self._spelt_out = re.compile(f"(?=({shortest_first}))") if shortest_first else None
        if vocabulary is not None:
            self._check_known(vocabulary)

    # ------------------------------------------------------------------------------------------------ what is written

    def open(self, observation: str) -> list[int]:
        """Ids of a new chat up to where the first reply begins."""
        text = self._render(self._first_messages(observation))
        return self._encode(text, self._opening, len(text) - self._to_reply[_FIRST])

    def follow(self, ids: list[int], observation: str) -> list[int]:
        """`ids` (a chat that ends with a reply) with the next observation added, up to where the reply begins."""
        _, text = self._around_reply(observation)
        added = self._encode(text, self._to_user, len(text) - self._to_reply[_SECOND])
        return [*ids, *([] if ids[-1] in self.stops else [self.eos]), *added[self._skipped :]]

    def reply_ids(self, text: str) -> list[int]:
        """Ids of a reply that is given as text, with what the template puts before it and the end-of-turn token."""
        text = self._lead + text
        return [*self._encode(text, len(self._lead), len(text), after=self._before_reply), self.eos]

    def reply_text(self, ids: list[int]) -> str:
        """The text of a reply, without its end."""
        ids = ids[:-1] if ids and ids[-1] in self.stops else ids  # not every tokenizer flags its end special
        return self._decoded(ids).removeprefix(self._lead_text)

    # ------------------------------------------------------------------------------------------------ the template

    def _first_messages(self, observation: str, system: str | None = None) -> list[dict[str, str]]:
        system = self.system if system is None else system
        if self._has_system_role:
            return [{"role": "system", "content": system}, {"role": "user", "content": observation}]
        return [{"role": "user", "content": f"{system}\n\n{observation}"}]

    def _around_reply(self, observation: str, earlier: Iterable[dict[str, str]] = ()) -> tuple[str, str]:
        """What the template writes between a user message and its reply, and from the end of the reply on.

        The first message has no system role here: what follows a reply must not repeat the system text.
        """
        messages = [
            *earlier,
            {"role": "user", "content": _FIRST},
            {"role": "assistant", "content": _REPLY},
            {"role": "user", "content": observation},
        ]
        before, after = self._around(self._render(messages), _REPLY)
        return before.partition(_FIRST)[2], after.lstrip(" ")

    def _render(self, messages: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        options: dict[str, Any] = {"tokenize": False, "add_generation_prompt": add_generation_prompt} | self._options
        try:
            return str(self.tokenizer.apply_chat_template(messages, **options))
        except Exception as error:  # a template is a program of somebody's
            raise ValueError(f"{self._name} fails: {one_line(error) or type(error).__name__}") from error

    def _keeps_system_role(self) -> bool:
        """Whether the template takes a system message, and writes it once."""
        self._has_system_role = True
        try:
            return self._render(self._first_messages(_FIRST, system=_SYSTEM)).count(_SYSTEM) == 1
        except ValueError:
            return False

    def _has_generation_prompt(self) -> bool:
        first = self._first_messages(_FIRST)
        return self._render(first) != self._render(first, add_generation_prompt=False)

    def _around(self, text: str, mark: str) -> tuple[str, str]:
        if text.count(mark) != 1 or (mark == _FIRST and self.system.strip() not in text):
            raise ValueError(f"{self._name} does not keep the messages as they are")
        before, after = text.split(mark)
        return before, after

    def _check_known(self, vocabulary: int) -> None:
        highest = max(self.tokenizer.vocab_size - 1, *self.follow([*self.open(""), self.eos], ""))
        if highest >= vocabulary:
            token = self.tokenizer.convert_ids_to_tokens(highest)
            raise ValueError(
                f"the tokenizer {self.tokenizer.name_or_path!r} writes {token!r} as token {highest}, and the model "
                f"knows {vocabulary} tokens: use the tokenizer that it was trained with"
            )

    def _end_of_turn(self, to_user: str, wanted: str | None) -> tuple[int, str]:
        """Id and text of the token that ends a reply."""
        known = {str(token): i for i, token in self.tokenizer.added_tokens_decoder.items()}
        special: Any = self.tokenizer.all_special_tokens
        ids: Any = self.tokenizer.convert_tokens_to_ids(special)
        known |= dict(zip(special, ids, strict=True))
        found = max((text for text in known if to_user.startswith(text)), key=len, default="")
        if wanted is not None and wanted not in known:
            problem = f"end_of_turn is {wanted!r}, which is no token of {self.tokenizer.name_or_path!r}"
            raise ArgumentError(problem, ("end_of_turn",))
        if wanted is None and not found:
            raise ValueError(
                f"{self._name} ends a reply with {to_user[:20]!r}, which is no token of its own; name the token that "
                "ends a turn as end_of_turn"
            )
        return known[wanted or found], found

    def _role_marks(self, *joints: str) -> tuple[str, ...]:
        """What would be read as the template's own if somebody wrote it: every token that is matched as a whole, and
        words of the joints such as `[INST]` or `USER:`.
        """
        added = sorted({str(token) for token in self.tokenizer.added_tokens_decoder.values()}, key=len, reverse=True)
        if added:
            joints = tuple(re.sub("|".join(map(re.escape, added)), " ", joint) for joint in joints)
        words = {
            word for joint in joints for word in joint.split() if re.search(r"\w", word) and re.search(r"\W", word)
        }
        return tuple(dict.fromkeys([*(mark for mark in added if mark.strip()), *sorted(words, key=len, reverse=True)]))

    # ------------------------------------------------------------------------------------------------ token ids

    def _ids(self, text: str, after: str = "") -> list[int]:
        """Ids of a text where it follows another: one that begins every text with a space has none here."""
        if after:
            before, both = (self.tokenizer(t, add_special_tokens=False)["input_ids"] for t in (after, after + text))
            if both[: len(before)] == before:
                return both[len(before) :]
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _encode(self, text: str, start: int, stop: int, after: str = "") -> list[int]:
        """Ids of a text of which text[start:stop] was written by somebody: marks spelt out in there are cut in two."""
        written = text[start:stop]
        found = self._spelt_out.finditer(written) if self._spelt_out else ()
        ids = self._joined(text, sorted({start + m.start() + self._cut_at[m[1]] for m in found}), after)
        marks = self._marks_in(ids)
        if marks and marks > self._marks_in(self._joined(text[:start] + text[stop:], (), after)):
            return self._joined(text, range(start + 1, stop), after)  # a mark that is spelt otherwise, as <THINK>
        return ids

    def _joined(self, text: str, cuts: Iterable[int], after: str) -> list[int]:
        pieces = [text[begin:end] for begin, end in pairwise([0, *cuts, len(text)])]
        return [*self._ids(pieces[0], after), *(i for piece in pieces[1:] for i in self._ids(piece, after="\n"))]

    def _decoded(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def _marks_in(self, ids: list[int]) -> int:
        """How many tokens are matched in the normalized text, whatever they are spelt like."""
        return sum(i in self._normalized for i in ids) if self._normalized else 0

    def _inside(self, mark: str) -> int:
        """The place in a mark at which its two parts, each on its own, are other tokens than the mark."""
        whole = self._ids(mark, after="\n")
        for place in range(1, len(mark)):
            if [*self._ids(mark[:place], after="\n"), *self._ids(mark[place:], after="\n")] != whole:
                return place
        raise ValueError(f"{self._name} has the mark {mark!r}, which its tokenizer reads as it reads any text")
