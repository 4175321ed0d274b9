"""Chats as token ids: the only file that touches the tokenizer's template.

A seat's chat is append-only. What a policy sampled stays the ids that it sampled; what the environment says is put
between them. So nothing is ever tokenised twice, a cache of earlier turns stays valid, and the log-probabilities in
training belong to exactly the tokens that were sampled.
"""

from transformers import PreTrainedTokenizerBase

_MARKS = ["<<first>>", "<<reply>>", "<<second>>"]


class Chat:
    """The pieces that a chat template puts around a user's text and an assistant's reply.

    Args:
        tokenizer: with a chat template and an end-of-turn token (`eos_token_id`).
        system: the system message, the same for every seat.

    Raises:
        ValueError: the tokenizer has no chat template, or one that does not repeat the texts that it is given.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, system: str):
        if tokenizer.chat_template is None:
            raise ValueError(
                f"the tokenizer {tokenizer.name_or_path!r} has no chat template; use an instruction-tuned model"
            )
        self.tokenizer = tokenizer
        self.eos = tokenizer.eos_token_id
        first, reply, second = _MARKS
        messages = [
            {"role": "system", "content": system},
            {"role": "user", "content": first},
            {"role": "assistant", "content": reply},
            {"role": "user", "content": second},
        ]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        if any(text.count(mark) != 1 for mark in _MARKS):
            raise ValueError(f"the chat template of {tokenizer.name_or_path!r} does not keep the messages as they are")
        opening, text = text.split(first)
        to_reply, text = text.split(reply)
        to_user, _ = text.split(second)
        eos_text = tokenizer.decode([self.eos])
        if not to_user.startswith(eos_text):
            raise ValueError(
                f"the chat template of {tokenizer.name_or_path!r} ends a reply with {to_user[:20]!r} and not with the "
                f"tokenizer's eos_token {eos_text!r}; set tokenizer.eos_token to the token that ends a turn"
            )
        self._opening = self._encode(opening)
        self._to_reply = self._encode(to_reply)
        self._to_user = self._encode(to_user.removeprefix(eos_text))

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _encode_plain(self, text: str) -> list[int]:
        """Ids of text that somebody wrote: special tokens spelt out in it stay plain text."""
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]

    def open(self, observation: str) -> list[int]:
        """Ids of a new chat up to where the first reply begins."""
        return [*self._opening, *self._encode_plain(observation), *self._to_reply]

    def follow(self, ids: list[int], observation: str) -> list[int]:
        """`ids` (a chat that ends with a reply) with the next observation added, up to where the reply begins."""
        end = [] if ids[-1] == self.eos else [self.eos]
        return [*ids, *end, *self._to_user, *self._encode_plain(observation), *self._to_reply]

    def reply_ids(self, text: str) -> list[int]:
        """Ids of a reply that is given as text, with the end-of-turn token."""
        return [*self._encode_plain(text), self.eos]

    def reply_text(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True)
