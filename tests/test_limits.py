"""Length limits of replies and chats, against what the tasks take."""

from pathlib import Path

import numpy as np
import pytest
import tiny

from envs import CoopEnv, DesignReview, Handover, MoonSurvival, PairedFeatures, PairedFunctions
from envs.core.episode import Phase
from envs.core.seeds import Stream, task_seed
from envs.core.task import Seat
from envs.scripted.demonstrator import Demonstrator
from marl_coop.config.errors import ConfigError
from marl_coop.config.schema import load_config
from marl_coop.experiment import setup
from marl_coop.rollout import limits
from marl_coop.rollout.chat import Chat

QUICKSTART = [str(Path(__file__).parents[1] / "configs/quickstart.yaml")]


def chat_of(env: CoopEnv) -> Chat:
    return Chat(tiny.byte_tokenizer(), env.system_prompt)


@pytest.mark.parametrize(
    "env",
    [
        PairedFunctions(families="held_out"),
        PairedFunctions(families=["offset"], acts=True),
        DesignReview(decisions=2, families=["auth_scheme", "pagination"]),
        MoonSurvival(),
        Handover(),
        PairedFeatures(families=["append"]),
        MoonSurvival(acts=True),
    ],
    ids=lambda env: type(env).__name__,
)
def test_a_limit_that_nobody_gave_cuts_no_demonstration_and_no_chat(env):
    """On tasks that were not looked at, played to their end, as a rollout puts them into tokens."""
    chat = chat_of(env)
    lengths = limits.measure(env, chat)
    allowed = limits.settled({}, env, chat)
    demonstrator = Demonstrator(np.random.default_rng(1))
    for index in range(12):
        observations, _ = env.reset(seed=task_seed(Stream.EVALUATION, 0, index))
        chats: dict[Seat, list[int]] = {seat: [] for seat in env.seats}
        while env.agents:
            phase, replies = env.phase, {seat: demonstrator.reply(env, seat) for seat in env.acting}
            for seat, reply in replies.items():
                ids = chats[seat]
                ids = chat.follow(ids, observations[seat]) if ids else chat.open(observations[seat])
                written = chat.reply_ids(reply)
                assert len(written) <= allowed[phase], reply
                chats[seat] = ids + written[: allowed[phase]]
            observations, *_ = env.step(replies)
        assert max(map(len, chats.values())) <= lengths.chat(allowed)


def test_limits_follow_the_families_and_a_given_one_stays():
    short, long = PairedFunctions(families=["offset"]), PairedFunctions(families="held_out")
    few, many = (limits.settled({Phase.TALK: 7}, env, chat_of(env)) for env in (short, long))
    assert few[Phase.FINAL] < many[Phase.FINAL]
    assert few[Phase.TALK] == many[Phase.TALK] == 7


def test_where_every_limit_is_given_nothing_is_played():
    given = {Phase.STANCE: 1, Phase.TALK: 2, Phase.FINAL: 3}
    env = PairedFunctions()
    assert limits.settled(given, env, chat_of(env)) == given
    with pytest.raises(RuntimeError, match="nothing is being played"):
        env.task  # noqa: B018


def test_a_budget_of_words_makes_replies_shorter():
    plain, budgeted = PairedFunctions(families=["offset"]), PairedFunctions(families=["offset"], budget=60)
    assert (
        limits.measure(budgeted, chat_of(budgeted)).replies[Phase.FINAL]
        < limits.measure(plain, chat_of(plain)).replies[Phase.FINAL]
    )


def settled(*overrides: str, positions: int = 4096) -> dict[Phase, int]:
    """The limits of a run of the quickstart with a model whose tokens are bytes."""
    config, tokenizer = load_config(QUICKSTART, overrides), tiny.byte_tokenizer()
    base, args = tiny.base_model(len(tokenizer)), setup.training_arguments(config)
    base.config.max_position_embeddings = positions
    setup.settle_limits(config, args, base, tokenizer)
    return args.max_tokens


def test_a_run_has_the_limits_of_what_it_trains_on_and_of_what_it_is_evaluated_on():
    one = "env.families=[offset]"
    plain = settled(one)
    held_out = settled(one, "evaluation.env.families=held_out")
    level = settled(one, "env.curriculum={levels: [{}, {families: [signature]}]}", "evaluation.env.families=[offset]")
    for longer in (held_out, level, settled(one, "env.acts=true")):
        assert longer[Phase.FINAL] > plain[Phase.FINAL]
    assert settled(one, "training.max_final_tokens=900") == plain | {Phase.FINAL: 900}


@pytest.mark.parametrize(
    ("overrides", "positions", "words"),
    [
        (
            ["training.max_final_tokens=60"],
            4096,
            r"command line: training.max_final_tokens: 60 is too few: in env a "
            r"reply of the phase final may take 9\d tokens; give as many, or leave it out",
        ),
        (
            ["training.max_stance_tokens=11", "evaluation.env.families=held_out"],
            4096,
            "11 is too few: in evaluation.env a reply of the phase stance may",
        ),
        ([], 700, r"model.name_or_path: a chat in env may come to 7\d\d tokens, and the model has 700 positions"),
    ],
)
def test_limits_that_cut_right_answers_and_chats_that_outgrow_the_model_are_refused(overrides, positions, words):
    with pytest.raises(ConfigError, match=words):
        settled(*overrides, positions=positions)
