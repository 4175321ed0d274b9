"""Which engine plays, and of which weights it is told."""

import sys
from types import ModuleType

import pytest
import tiny

from marl_coop.engines.embedded import EmbeddedEngine


class Told(EmbeddedEngine):
    """Keeps the versions that it was told of."""

    def __init__(self, policy, max_chats=64):
        super().__init__(policy, max_chats)
        self.versions = []

    def load_adapters(self, version):
        self.versions.append(version)
        super().load_adapters(version)


def test_an_engine_that_is_given_plays_and_is_told_of_every_update(tmp_path):
    policy = tiny.team(tiny.base_model(len(tiny.word_tokenizer(tiny.WORDS))))
    engine = Told(policy)
    trainer = tiny.cue_trainer(tmp_path, policy=policy, engine=engine, num_updates=2, num_mini_batches=2)
    assert trainer.players.engine is engine
    played = []
    play = trainer.players.play
    trainer.players.play = lambda seeds, seed: played.append(play(seeds, seed)) or played[-1]
    trainer.train()
    assert engine.versions == [0, 0, 2, 4, 4]  # made, began, after each update of two steps, ended
    versions = [{t.version for r in rollouts for t in r.traces["agent_0"].turns} for rollouts in played]
    assert versions == [{0}, {2}]


def test_a_resumed_run_goes_on_with_the_version_of_its_weights(tmp_path):
    tiny.cue_trainer(tmp_path, num_updates=1, num_mini_batches=2).train()
    policy = tiny.team(tiny.base_model(len(tiny.word_tokenizer(tiny.WORDS))))
    engine = Told(policy)
    options = {"num_updates": 2, "num_mini_batches": 2, "policy": policy, "engine": engine}
    tiny.cue_trainer(tmp_path, **options).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert engine.versions == [0, 2, 4, 4]


def test_a_configuration_names_an_engine_by_its_dotted_path(tmp_path, monkeypatch):
    module = ModuleType("my_engines")
    module.make = lambda policy, args: Told(policy, args.max_rows)
    monkeypatch.setitem(sys.modules, "my_engines", module)
    trainer = tiny.cue_trainer(tmp_path / "mine", engine="my_engines:make", max_rows=3)
    assert isinstance(trainer.players.engine, Told) and trainer.players.engine.max_chats == 3
    assert type(tiny.cue_trainer(tmp_path / "ours").players.engine) is EmbeddedEngine


def test_what_is_no_engine_is_refused_by_the_name_of_what_it_lacks(tmp_path, monkeypatch):
    module = ModuleType("my_engines")
    module.make = lambda policy, args: object()
    monkeypatch.setitem(sys.modules, "my_engines", module)
    with pytest.raises(ValueError, match="my_engines:make makes a object, which lacks max_chats, submit, collect"):
        tiny.cue_trainer(tmp_path, engine="my_engines:make")


@pytest.mark.parametrize("name", ["embeded", "nowhere:Engine"])
def test_an_engine_that_does_not_exist_is_one_clear_line(tmp_path, name):
    with pytest.raises(ValueError, match=f"training.engine: .*{name}") as caught:
        tiny.arguments(tmp_path, engine=name)
    assert "\n" not in str(caught.value)


def test_replies_of_other_weights_than_the_newest_are_refused(tmp_path):
    class Deaf(Told):
        """Goes on with the weights that it had, as a server would that missed the news."""

        def load_adapters(self, version):
            super().load_adapters(min(version, 1))

    policy = tiny.team(tiny.base_model(len(tiny.word_tokenizer(tiny.WORDS))))
    trainer = tiny.cue_trainer(tmp_path, policy=policy, engine=Deaf(policy), num_updates=3)
    with pytest.raises(RuntimeError, match=r"Deaf was told of weights 2 and sampled from weights \[1\]"):
        trainer.train()


def test_the_engine_sleeps_from_the_end_of_play_until_the_adapters_have_changed(tmp_path):
    calls = []

    class Sleeper(Told):
        def load_adapters(self, version):
            calls.append(f"load {version}")
            super().load_adapters(version)

        def submit(self, request):
            if calls[-1] != "play":
                calls.append("play")
            super().submit(request)

        def sleep(self):
            calls.append("sleep")

    policy = tiny.team(tiny.base_model(len(tiny.word_tokenizer(tiny.WORDS))))
    options = {"num_updates": 2, "advantage": "counterfactual"}  # a replay, too, is played before
    tiny.cue_trainer(tmp_path, policy=policy, engine=Sleeper(policy), **options).train()
    update = ["play", "sleep"]
    assert calls == ["load 0", "load 0", *update, "load 1", *update, "load 2", "load 2"]


def test_the_engine_is_told_of_the_copies_that_it_plays_replays_with(tmp_path):
    told = []

    class Knows(Told):
        def load_adapters(self, version):
            told.append(self.policy.all_adapters)
            super().load_adapters(version)

    policy = tiny.team(tiny.base_model(len(tiny.word_tokenizer(tiny.WORDS))))
    tiny.cue_trainer(tmp_path, policy=policy, engine=Knows(policy), advantage="counterfactual")
    assert told == [(*tiny.SEATS, "agent_0_start", "agent_1_start")]


def test_after_training_the_engine_plays_with_the_last_weights(tmp_path):
    trainer = tiny.cue_trainer(tmp_path, num_updates=1, num_mini_batches=2, max_steps=1)
    trainer.train()
    (rollout,) = trainer.players.play([7], sampling_seed=0)
    assert {turn.version for turn in rollout.traces["agent_0"].turns} == {1}
