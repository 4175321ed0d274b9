"""Shared team memory: an append-only log of entries of which a bounded part is live, read by query and by expansion.

A write adds an entry and never changes one. What is live is what no summary covers yet, and it never holds more tokens
than the budget: older entries are grouped, c at a time, into summaries, and these into summaries of the next level. So
a reader meets a few lines, and follows them down with `expand` to whatever was written. The latest version of every key
stays live as it is.

Two seats that write one key cannot overwrite each other unseen: whoever has not read the latest version gets a
`WriteConflict` (optimistic concurrency, Kung & Robinson 1981). Tokens are those of `envs.core.tokens.message_tokens`,
and all that is delivered is charged to its reader. The store knows what was written into it and nothing else.

>>> memory = Memory(budget=100)
>>> memory.write("agent_0", "30 s", key="timeout").line
'#0 agent_0 timeout: 30 s'
>>> memory.write("agent_1", "60 s", key="timeout")
WriteConflict(unread=(0,))
>>> [entry.text for entry in memory.query("agent_1", "which timeout")]
['30 s']
>>> memory.write("agent_1", "60 s", key="timeout").parents, memory.charged["agent_1"]
((0,), 16)
"""

import json
import math
import re
import reprlib
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from typing import Any, NamedTuple, Self

from envs.core.episode import Entry
from envs.core.task import Seat
from envs.core.tokens import first_tokens, message_tokens, one_line

POLICY = "policy"  # the summariser that waits for a seat to call `summarise`
TEAM = "team"  # the author of a summary that no seat asked for
K1, B = 1.5, 0.75  # of BM25: how soon a repeated word stops to count, and how much long texts are held back

Summariser = Callable[[Sequence[Entry]], str]


class WriteConflict(NamedTuple):
    """A write that was refused: versions of the key that its author has not read, oldest first."""

    unread: tuple[int, ...]


class Full(NamedTuple):
    """A write that was refused: it would leave this many tokens too many, and nothing is left to summarise."""

    excess: int


def extractive(entries: Sequence[Entry]) -> str:
    """The latest value of each key and the first line of what has none, in order: a summary that needs no model."""
    parts = {entry.key if entry.key else entry.id: entry for entry in entries}
    lines = (f"{e.key}: {e.text}" if e.key else e.text.partition("\n")[0] for e in parts.values())
    return "; ".join(line for line in lines if line)


class Memory:
    """The store of one team in one episode.

    Args:
        budget: the most tokens that live entries may have together, 0 or more; at 0 nothing can be written. Up to
            fanout - 1 entries of each level cannot be grouped, so n notes need room for (fanout - 1) log n summaries.
        fanout: how many entries of one level make a summary, at least 2.
        ratio: the most tokens of a summary for each token of what it covers, from 1 / fanout to below 1.
        summariser: what writes a summary's text from the entries that it covers, oldest first: `extractive` or any
            function; or `POLICY`: nothing is summarised until a seat does it, and a write that does not fit is `Full`.

    Attributes:
        entries: the log, in which an entry's id is its index.
        clock: the round of the next entries; `tick` moves it on.
        charged: tokens written and read by each seat so far.
    """

    def __init__(self, budget: int, *, fanout: int = 4, ratio: float = 0.25, summariser: Summariser | str = extractive):
        if not isinstance(budget, int) or budget < 0:
            raise ValueError(f"Memory: budget is {budget!r}; it must be a whole number of at least 0.")
        if not isinstance(fanout, int) or fanout < 2:
            raise ValueError(f"Memory: fanout is {fanout!r}; it must be a whole number of at least 2.")
        if not 1 / fanout <= ratio < 1:
            raise ValueError(f"Memory: ratio is {ratio!r}; it must be from 1 / fanout ({1 / fanout:g}) to below 1.")
        if not callable(summariser) and summariser != POLICY:
            raise ValueError(f"Memory: summariser is {summariser!r}; it must be a function of entries or {POLICY!r}.")
        self.budget, self.fanout, self.ratio, self.summariser = budget, fanout, ratio, summariser
        self.entries: list[Entry] = []
        self.clock = 0
        self.charged: Counter[Seat] = Counter()
        self._read: dict[tuple[Seat, str], int] = {}  # the newest version of a key that a seat knows
        # What follows from the entries, kept beside them: a log that is long is read by nobody.
        self._live: dict[int, Entry] = {}
        self._live_tokens = 0
        self._versions: defaultdict[str, list[int]] = defaultdict(list)

    # -- what is there

    @property
    def live(self) -> tuple[Entry, ...]:
        """The entries that no summary covers, oldest first."""
        return tuple(self._live.values())

    @property
    def live_tokens(self) -> int:
        return self._live_tokens

    def leaves(self, id: int) -> tuple[int, ...]:
        """The ids of all that was written and that an entry stands for, oldest first; itself for what is no summary."""
        entry = self._entry(id)
        return tuple(sorted(leaf for child in entry.parents for leaf in self.leaves(child))) if entry.level else (id,)

    # -- what a seat can do

    def tick(self) -> None:
        """The next round begins."""
        self.clock += 1

    def write(self, author: Seat, text: str, key: str | None = None) -> Entry | WriteConflict | Full:
        """Add a note or, with a key, a new version of its value, and charge its tokens to the author.

        White space becomes single spaces, so that no entry can show a line that seems to be another's.

        Raises ValueError for a text without a word or symbol, and for an author whose name is not one word.
        """
        if not message_tokens(text) or not re.fullmatch(r"\w+", author):
            raise ValueError(f"Memory.write: author {author!r} and text {text!r}; give one word, and at least one.")
        key = one_line(key or "").casefold() or None
        versions = self._versions.get(key, []) if key else []
        unread = versions[bisect_right(versions, self._read.get((author, key or ""), -1)) :]
        if unread:
            return WriteConflict(tuple(unread))
        entry = _sized(
            id=len(self.entries),
            author=author,
            clock=self.clock,
            key=key,
            text=one_line(text),
            parents=tuple(versions[-1:]),
        )
        excess, summaries = self.live_tokens + entry.n_tok - self.budget, []
        live = [*self.live, entry] if excess > 0 else []
        while excess > 0:
            id = entry.id + 1 + len(summaries)
            summary = None if self.summariser == POLICY else self._summary(TEAM, live, id, but=entry)
            if not summary:
                return Full(excess)
            summaries.append(summary)
            live = [*(e for e in live if e.id not in summary.parents), summary]
            excess = _tokens(live) - self.budget
        for added in (entry, *summaries):
            self._add(added)
        self.charged[author] += entry.n_tok
        self._knows(author, [entry])
        return entry

    def query(self, reader: Seat, words: str, k: int = 3, budget: float = math.inf) -> tuple[Entry, ...]:
        """At most k live entries that match the words, best first, with at most `budget` tokens together.

        The order is that of `ranked`. What does not fit into the budget is passed over. Without words: the newest.
        """
        return self._deliver(reader, ranked(words, self.live), k, budget)

    def expand(self, reader: Seat, id: int, budget: float = math.inf) -> tuple[Entry, ...]:
        """The entries that a summary covers, oldest first, as far as they fit into the budget; none for another entry.

        Raises ValueError where there is no such entry.
        """
        entry = self._entry(id)
        return self._deliver(reader, [self.entries[i] for i in entry.parents] if entry.level else [], math.inf, budget)

    def summarise(self, author: Seat, text: str = "") -> Entry | None:
        """Put the oldest entries of one level, `fanout` of them, under a summary; None where there are too few.

        A text is cut to the tokens that a summary may have and is charged to the author; without one the summariser
        writes it, or `extractive` in the place of `POLICY`, free of charge.
        """
        entry = self._summary(author, self.live, len(self.entries), text)
        if not entry:
            return None
        self._add(entry)
        if text:
            self.charged[author] += entry.n_tok
        return entry

    # -- how

    def _add(self, entry: Entry) -> None:
        """Put an entry at the end of the log; a summary is live in the place of what it covers."""
        self.entries.append(entry)
        for id in entry.parents if entry.level else ():
            self._live_tokens -= self._live.pop(id).n_tok
        self._live[entry.id] = entry
        self._live_tokens += entry.n_tok
        if entry.key:
            self._versions[entry.key].append(entry.id)

    def _entry(self, id: int) -> Entry:
        if not 0 <= id < len(self.entries):
            raise ValueError(f"Memory: there is no entry {id}; there are {len(self.entries)}, from 0.")
        return self.entries[id]

    def _oldest(self, live: Sequence[Entry], least: int, but: Entry | None) -> Sequence[Entry]:
        """The oldest entries to put under one summary of `least` tokens, all of the lowest level that has enough.

        Taking one level at a time keeps the tree low: an entry of level h stands for fanout^h leaves.
        """
        pinned = {entry.key: entry for entry in live if entry.key}  # the latest version of each key
        free = [entry for entry in live if entry != but and entry != pinned.get(entry.key or "")]
        by_level = ([e for e in free if e.level == level] for level in sorted({e.level for e in free}))
        groups = (same[i : i + self.fanout] for same in by_level for i in range(len(same) - self.fanout + 1))
        return next((group for group in groups if self._most(group) >= least), ())

    def _most(self, group: Sequence[Entry]) -> int:
        """The most tokens that a summary of the group may have."""
        return int(self.ratio * _tokens(group) + 1e-9)

    def _summary(
        self, author: Seat, live: Sequence[Entry], id: int, text: str = "", but: Entry | None = None
    ) -> Entry | None:
        """The next summary, of any live entries `but` one; None where no group is long enough to be summarised."""
        bare = _sized(id=id, author=author, clock=self.clock, key=None, text="", level=1)
        group = self._oldest(live, bare.n_tok, but)
        if not group:
            return None
        write = self.summariser if callable(self.summariser) else extractive
        parents = tuple(entry.id for entry in group)
        text = text or write(group)
        if not isinstance(text, str):
            raise ValueError(f"Memory: the summariser gave {text!r} for the entries {parents}; it must return a str.")
        text = first_tokens(one_line(text), self._most(group) - bare.n_tok)
        n_tok = bare.n_tok + message_tokens(text)
        return replace(bare, text=text, n_tok=n_tok, parents=parents, level=group[0].level + 1)

    def _deliver(self, reader: Seat, entries: Iterable[Entry], k: float, budget: float) -> tuple[Entry, ...]:
        chosen: list[Entry] = []
        for entry in entries:
            if len(chosen) < k and entry.n_tok <= budget:
                chosen.append(entry)
                budget -= entry.n_tok
        self.charged[reader] += _tokens(chosen)
        self._knows(reader, chosen)
        return tuple(chosen)

    def _knows(self, seat: Seat, entries: Iterable[Entry]) -> None:
        for entry in entries:
            if entry.key:
                self._read[seat, entry.key] = max(entry.id, self._read.get((seat, entry.key), -1))

    # -- on disk

    def to_json(self) -> str:
        state = {
            "settings": {"budget": self.budget, "fanout": self.fanout, "ratio": self.ratio},
            "entries": [asdict(entry) for entry in self.entries],
            "clock": self.clock,
            "charged": self.charged,
            "read": [[seat, key, id] for (seat, key), id in self._read.items()],
        }
        return json.dumps(state, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, summariser: Summariser | str = extractive) -> Self:
        """What `to_json` wrote; the summariser is a function, so it is not in the text and must be given again."""
        try:
            state = json.loads(text)
            budget, fanout, ratio = (state["settings"][name] for name in ("budget", "fanout", "ratio"))
            entries = [Entry(**{**raw, "parents": tuple(raw["parents"])}) for raw in state["entries"]]
            clock, charged = state["clock"], Counter(state["charged"])
            read = {(seat, key): id for seat, key, id in state["read"]}
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"Memory.from_json: {reprlib.repr(text)} is not what to_json writes ({error!r}); give that, unchanged."
            ) from error
        memory = cls(budget, fanout=fanout, ratio=ratio, summariser=summariser)
        for entry in entries:
            memory._add(entry)
        memory.clock, memory.charged, memory._read = clock, charged, read
        return memory


def ranked(words: str, entries: Sequence[Entry]) -> list[Entry]:
    """Entries that match the words: first those whose key is among them, the longest first, then by BM25, then newest.

    The key `mail_port` is among "mail port" and "mail-port" too. By BM25 a name with `_` is found by each of its parts
    and finds only itself, so who asks for it by name reads no more. Without words all entries match.

    >>> port, limit = (Entry(id=i, author="a", clock=0, key=key, text="80") for i, key in enumerate(("a_b", "a_c")))
    >>> [[entry.key for entry in ranked(words, [port, limit])] for words in ("a-b?", "a_b", "c", "d")]
    [['a_b', 'a_c'], ['a_b'], ['a_c'], []]
    """
    terms = _words(words)
    asked = set(_parts(terms))
    texts = [_words(f"{entry.key or ''} {entry.text}") for entry in entries]
    scores = bm25(terms, [[*text, *_parts(word for word in text if "_" in word)] for text in texts])
    keys = [set(_parts(_words(entry.key or ""))) for entry in entries]
    keyed = [len(key) if key <= asked else 0 for key in keys]
    order = sorted(zip(keyed, scores, (e.id for e in entries), entries, strict=True), reverse=True)
    return [entry for named, score, _, entry in order if named or score > 0 or not terms]


def bm25(terms: Sequence[str], texts: Sequence[Sequence[str]]) -> list[float]:
    """The BM25 score, 0 or more, of each text (a list of words) for the terms of a query.

    Source: Robertson & Zaragoza (2009), with the inverse document frequency log(1 + (N - n + 0.5) / (n + 0.5)).

    A word in one of two texts of equal length weighs log(1 + 1.5 / 1.5) = 0.693, and once counts 2.5 / 2.5:

    >>> [round(score, 3) for score in bm25(["port"], [["port", "80"], ["time", "30"]])]
    [0.693, 0.0]
    """
    mean = sum(map(len, texts)) / len(texts) if texts else 0.0
    scores = [0.0] * len(texts)
    found: dict[str, dict[int, int]] = {term: {} for term in terms}  # term -> text -> how often it is there
    for i, text in enumerate(texts):
        for word in text:
            if word in found:
                found[word][i] = found[word].get(i, 0) + 1
    for counts in found.values():
        weight = math.log(1 + (len(texts) - len(counts) + 0.5) / (len(counts) + 0.5))
        for i, count in counts.items():
            scores[i] += weight * count * (K1 + 1) / (count + K1 * (1 - B + B * len(texts[i]) / mean))
    return scores


def _sized(**fields: Any) -> Entry:
    entry = Entry(**fields)
    return replace(entry, n_tok=message_tokens(entry.line))


@lru_cache(maxsize=4096)  # every query reads every entry
def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", text.casefold()))


def _parts(words: Iterable[str]) -> list[str]:
    return [part for word in words for part in word.split("_") if part]


def _tokens(entries: Iterable[Entry]) -> int:
    return sum(entry.n_tok for entry in entries)
