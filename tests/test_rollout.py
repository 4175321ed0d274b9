"""From episodes to tensors: every sampled token once, under its own agent, with its own log-probability."""

import copy
import math
from dataclasses import replace

import pytest
import tiny
import torch

from envs.core.episode import Phase
from envs.core.seeds import stable_seed
from marl_coop.engines import FinishReason
from marl_coop.policy.routed_lora import spans_of
from marl_coop.ppo.batch import SeatSample, collate, stack_turns
from marl_coop.rollout.trajectory import Trajectory, Transition

TASKS = range(20, 26)


class Recorded:
    """An engine that keeps what it was asked and what it answered."""

    max_chats = None

    def __init__(self, engine):
        self.engine, self.asked, self.answered, self.forgotten = engine, [], [], 0

    def submit(self, request):
        self.asked.append(request)
        self.engine.submit(request)

    def collect(self):
        self.answered += (answers := self.engine.collect())
        return answers

    def reset_cache(self):
        self.forgotten += 1
        self.engine.reset_cache()


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    return tiny.cue_trainer(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def played(trainer):
    """Rollouts, and what went through the engine."""
    players = trainer.players
    players.engine, recorded = (engine := Recorded(players.engine)), players.engine
    rollouts = players.play(TASKS, sampling_seed=5)
    players.engine = recorded
    return rollouts, engine


def rows_of(rollouts, trainable=True):
    rows = [
        SeatSample(trace=r.traces[seat], trainable=trainable, terms_MK=torch.arange(3.0)[None])
        for r in rollouts
        for seat in tiny.SEATS
    ]
    return sorted(rows, key=lambda row: row.trace.adapter)


def test_beside_a_turn_stands_the_partners_last_turn_that_is_not_later():
    def trace(*rounds):
        return Trajectory(seat="", player=None, turns=[Transition(start=0, stop=0, round=r) for r in rounds])

    assert trace(0, 1, 3).latest(trace(0, 1, 3)) == [0, 1, 2]
    assert trace(0, 1, 5).latest(trace(0, 2, 3, 4, 5)) == [0, 1, 1, 1, 2]
    assert trace(0, 2, 3, 4, 5).latest(trace(0, 1, 5)) == [0, 0, 4]
    assert trace(1, 2).latest(trace(0, 2)) == [-1, 1]


def test_a_trace_is_made_of_what_was_asked_and_sampled(played):
    rollouts, engine = played
    assert len(engine.asked) == 3 * 2 * len(TASKS)
    assert engine.forgotten == 2  # a cache of other weights before, none left behind
    for i, rollout in enumerate(rollouts):
        for seat, trace in rollout.traces.items():
            asked, answered = ([x for x in xs if x.chat == (i, seat)] for xs in (engine.asked, engine.answered))
            mine = list(zip(asked, answered, strict=True))
            assert len(mine) == len(trace.turns) == 3
            for (request, generation), turn in zip(mine, trace.turns, strict=True):
                assert request.adapter == trace.adapter == seat
                assert trace.ids[: turn.start] == request.ids
                assert trace.ids[turn.start : turn.stop] == generation.ids
                assert turn.logprobs == generation.logprobs
            assert len(trace.ids) == trace.turns[-1].stop


def test_text_and_tokens_say_the_same(trainer, played):
    decode, encode = trainer.processing_class.decode, trainer.players.chat.reply_ids
    for rollout in played[0]:
        for seat, trace in rollout.traces.items():
            turns = rollout.episode.turns_of(seat)
            assert [turn.phase for turn in turns] == [Phase.STANCE, Phase.TALK, Phase.FINAL]
            start = 0
            for turn, tokens in zip(turns, trace.turns, strict=True):
                assert turn.reply == decode(trace.ids[tokens.start : tokens.stop], skip_special_tokens=True)
                observation, prompt = encode(turn.observation)[:-1], trace.ids[start : tokens.start]
                assert any(prompt[i:][: len(observation)] == observation for i in range(len(prompt)))
                start = tokens.stop


def test_every_phase_has_its_own_limit(trainer, played):
    limits = [trainer.args.max_tokens[phase] for phase in (Phase.STANCE, Phase.TALK, Phase.FINAL)]
    lengths = [[t.stop - t.start for t in trace.turns] for r in played[0] for trace in r.traces.values()]
    assert [max(of_phase) for of_phase in zip(*lengths, strict=True)] == limits
    assert any(length < limit for of_row in lengths for length, limit in zip(of_row, limits, strict=True))


@pytest.mark.parametrize("padding_free", [False, True])
def test_every_sampled_token_is_in_the_batch_once_under_its_own_agent(played, padding_free):
    rollouts, engine = played
    rows = rows_of(rollouts)
    batch = collate(rows, pad=0, device=torch.device("cpu"), padding_free=padding_free)
    places = batch.layout.places
    found = []
    for adapter, tokens in batch.tokens.items():
        for n in range(tokens.start, tokens.stop):
            row, column = int(batch.rows_N[n]), int(batch.columns_N[n])
            routed = column if padding_free else row
            assert any(span.adapter == adapter and span.start <= routed < span.stop for span in batch.spans)
            found.append((row, column, int(batch.layout.input_ids_RT[row, column]), float(batch.sampler_logprobs_N[n])))
    expected = [
        (r, start + turn.start + i, row.trace.ids[turn.start + i], logprob)
        for (r, start), row in zip(places, rows, strict=True)
        for turn in row.trace.turns
        for i, logprob in enumerate(turn.logprobs)
    ]
    assert [f[:3] for f in found] == [e[:3] for e in expected]
    assert [f[3] for f in found] == pytest.approx([e[3] for e in expected])
    assert len({f[:2] for f in found}) == len(found) == sum(len(g.ids) for g in engine.answered)
    sampled = sorted(token for g in engine.answered for token in g.ids)
    assert sorted(f[2] for f in found) == sampled


def test_turns_of_a_batch(played):
    rows = rows_of(played[0])
    batch = collate(rows, pad=0, device=torch.device("cpu"))
    turns = [(r, turn) for r, row in enumerate(rows) for turn in row.trace.turns]
    end_rows, end_columns = batch.prompt_ends_J
    assert [(int(r), int(c)) for r, c in zip(end_rows, end_columns, strict=True)] == [
        (r, t.start - 1) for r, t in turns
    ]
    for n, j in enumerate(batch.turn_N.tolist()):
        row, turn = turns[j]
        assert int(batch.rows_N[n]) == row
        assert turn.start <= int(batch.columns_N[n]) < turn.stop
    for adapter, part in batch.turns.items():
        assert {rows[turns[j][0]].trace.adapter for j in range(part.start, part.stop)} == {adapter}
    assert sum(part.stop - part.start for part in batch.turns.values()) == len(turns)


def test_padding_is_masked(played):
    rows = rows_of(played[0])
    batch = collate(rows, pad=0, device=torch.device("cpu"))
    assert batch.layout.input_ids_RT.shape[1] % 16 == 0
    for r, row in enumerate(rows):
        length = len(row.trace.ids)
        assert batch.layout.input_ids_RT[r, :length].tolist() == row.trace.ids
        masked = batch.layout.input_ids_RT.shape[1] - length
        assert batch.layout.told["attention_mask"][r].tolist() == [1] * length + [0] * masked
    assert batch.spans == spans_of([row.trace.adapter for row in rows])


def test_rows_must_be_sorted(played):
    rows = rows_of(played[0])
    with pytest.raises(ValueError, match="sort the batch"):
        collate([rows[0], rows[-1], rows[1]], pad=0, device=torch.device("cpu"))


def test_turns_stack_to_a_masked_matrix(played):
    first, second = rows_of(played[0])[:2]
    second.terms_MK, second.trainable = torch.tensor([[5.0]]), False
    values, mask = stack_turns([first, second], "rewards_K", turns=4)
    assert values.tolist() == [[0, 1, 2, 0], [5, 0, 0, 0]]
    assert mask.tolist() == [[1, 1, 1, 0], [0, 0, 0, 0]]


def test_an_episode_does_not_depend_on_the_others(trainer, played):
    alone = trainer.players.play([TASKS[2]], sampling_seed=5)[0]
    assert alone.episode == played[0][2].episode
    assert {seat: trace.ids for seat, trace in alone.traces.items()} == {
        seat: trace.ids for seat, trace in played[0][2].traces.items()
    }
    backwards = trainer.players.play(TASKS[::-1], sampling_seed=5)
    assert [r.episode for r in backwards[::-1]] == [r.episode for r in played[0]]


class LastFirst:
    """An engine that gives one reply at a time, to what was asked last."""

    max_chats = None

    def __init__(self, engine):
        self.engine, self.pending, self.answered = engine, [], []

    def submit(self, request):
        self.pending.append(request)

    def collect(self):
        self.engine.submit(request := self.pending.pop())
        self.answered.append(request.chat)
        return self.engine.collect()

    def reset_cache(self):
        self.pending = []
        self.engine.reset_cache()


def test_replies_may_come_in_any_order_and_hold_back_their_own_episode_alone(trainer, played):
    runner = copy.copy(trainer.players)
    runner.engine = engine = LastFirst(trainer.players.engine)
    rollouts = runner.play(TASKS, sampling_seed=5)
    episodes = [episode for episode, _ in engine.answered]
    assert episodes == sorted(episodes, reverse=True)  # the last one was over before the others had a reply
    assert [r.episode for r in rollouts] == [r.episode for r in played[0]]
    for one, other in zip(rollouts, played[0], strict=True):
        for seat in tiny.SEATS:
            assert one.traces[seat].ids == other.traces[seat].ids
            for a, b in zip(one.traces[seat].turns, other.traces[seat].turns, strict=True):
                assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)


@pytest.mark.parametrize(("room", "together"), [(4, [2, 2]), (5, [2, 2]), (6, [3, 1]), (1, [1, 1, 1, 1])])
def test_no_more_chats_are_played_at_once_than_the_engine_has_memory_for(trainer, played, room, together):
    runner = copy.copy(trainer.players)
    runner.engine = engine = Recorded(trainer.players.engine)
    engine.max_chats, tasks = room, TASKS[:4]
    at_once = []
    runner._end = lambda session: at_once.append(len(session.slots)) or type(runner)._end(runner, session)
    rollouts = runner.play(tasks, sampling_seed=5), runner.play_ahead(tasks, sampling_seed=5).result()
    assert at_once == together * 2
    for one, ahead, other in zip(*rollouts, played[0][:4], strict=True):
        assert one.episode == ahead.episode == other.episode
        for seat in tiny.SEATS:
            assert one.traces[seat].ids == ahead.traces[seat].ids == other.traces[seat].ids


def of_ids(reply, ids):
    return replace(reply, ids=ids, logprobs=[-1.0] * len(ids))


class Altered(Recorded):
    """An engine whose answers are changed on their way."""

    def __init__(self, engine, change):
        super().__init__(engine)
        self.change = change

    def collect(self):
        return self.change(self.engine.collect())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda done: [], "gave nothing, and 2 replies are to come"),
        (lambda done: [*done, done[0]], r"gave a reply of \(0, 'agent_.'\) that nobody waits for"),
        (lambda done: [replace(done[0], chat="other")], "gave a reply of 'other' that nobody waits for"),
        (lambda done: [replace(one, logprobs=[]) for one in done], "gave [1-9][0-9]* ids and 0 logprobs for"),
        (lambda done: [replace(one, ids=[], logprobs=[]) for one in done], "gave 0 ids and 0 logprobs for"),
        (
            lambda done: [replace(one, logprobs=[math.nan] * len(one.ids)) for one in done],
            "gave a log-probability that is not finite for",
        ),
        (
            lambda done: [of_ids(one, [5] * 99) for one in done],
            "gave 99 ids, beyond the end, for .* [0-9]+ at most",
        ),
        (lambda done: [of_ids(one, [1, *one.ids]) for one in done], "gave [0-9]+ ids, beyond the end, for"),
        (lambda done: [of_ids(one, [5]) for one in done], "gave 1 ids without an end for"),
        (
            lambda done: [replace(of_ids(one, [1]), finish_reason=FinishReason.LENGTH) for one in done],
            "gave the reason 'length' for .* give 'stop' if the last id is a stop token",
        ),
    ],
)
def test_an_engine_that_breaks_its_contract_is_an_error(trainer, monkeypatch, change, message):
    monkeypatch.setattr(trainer.players, "engine", Altered(trainer.players.engine, change))
    with pytest.raises(RuntimeError, match=rf"collect\(\) of Altered {message}"):
        trainer.players.play(TASKS[:1], sampling_seed=5)


def test_a_reply_that_was_cut_is_marked_in_the_episode(trainer, played):
    cut = 0
    for rollout in played[0]:
        for seat, trace in rollout.traces.items():
            for turn, tokens in zip(rollout.episode.turns_of(seat), trace.turns, strict=True):
                ended = trace.ids[tokens.stop - 1] in trainer.players.chat.stops
                assert turn.truncated == (not ended) == (tokens.finish_reason is FinishReason.LENGTH)
                cut += turn.truncated
    assert 0 < cut < 3 * 2 * len(TASKS)


def test_another_sampling_seed_gives_other_episodes(trainer, played):
    others = trainer.players.play(TASKS, sampling_seed=6)
    assert [r.episode.task for r in others] == [r.episode.task for r in played[0]]
    assert all(a.episode.turns != b.episode.turns for a, b in zip(others, played[0], strict=True))


def test_no_two_replies_share_a_seed(played):
    seeds = [request.seed for request in played[1].asked]
    assert len(set(seeds)) == len(seeds)


def test_stable_seed():
    assert stable_seed(1, 2) == 7764949442709860949  # on every machine
    assert len({stable_seed(*key) for key in [(1, 2), (2, 1), (1, 3), (1,), (1, 2, 3)]}) == 5
    assert all(0 <= stable_seed(i) < 2**63 for i in range(50))


class OneSpeaks(tiny.CueTask):
    """Only agent_0 acts in the talk, so the seats have different numbers of turns."""

    @property
    def acting(self):
        return tiny.SEATS[:1] if self.phase is Phase.TALK else super().acting


def test_seats_with_different_numbers_of_turns_are_trained_beside_each_other(tmp_path, monkeypatch):
    monkeypatch.setattr(tiny, "CueTask", OneSpeaks)
    trainer = tiny.cue_trainer(tmp_path, num_updates=1)
    hidden = trainer.model.config.hidden_size
    for rows in trainer.collector.collect(0):
        first, second = (rows[seat].features_KF for seat in tiny.SEATS)
        assert (len(first), len(second)) == (3, 2)
        own_first, own_second = first[:, :hidden], second[:, :hidden]
        assert torch.equal(first[:, hidden:], own_second[[0, 0, 1]])
        assert torch.equal(second[:, hidden:], own_first[[0, 2]])
    trainer.train()


class OneBegins(tiny.CueTask):
    """Only agent_0 acts in the first step."""

    @property
    def acting(self):
        return tiny.SEATS[:1] if self.phase is Phase.STANCE else super().acting


def test_a_critic_sees_nothing_of_a_partner_that_has_not_begun(tmp_path, monkeypatch):
    monkeypatch.setattr(tiny, "CueTask", OneBegins)
    trainer = tiny.cue_trainer(tmp_path)
    hidden = trainer.model.config.hidden_size
    for rows in trainer.collector.collect(0):
        beside = rows["agent_0"].features_KF[:, hidden:]
        assert not beside[0].any() and beside[1].any()
        assert torch.equal(beside[1:], rows["agent_1"].features_KF[:, :hidden])
