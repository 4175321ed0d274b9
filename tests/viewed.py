"""Folders of runs for the viewer, played by scripted partners, and replies that a page must survive."""

import json
from collections.abc import Sequence
from pathlib import Path

import yaml

from envs import make
from envs.core.env import CoopEnv
from envs.core.episode import Episode
from envs.core.task import Seat
from envs.scripted.play import play
from envs.scripted.registry import find_partner
from marl_coop.config.battery import Battery
from marl_coop.config.schema import load_config
from marl_coop.experiment.battery import play_battery
from marl_coop.experiment.plan import make_plan
from marl_coop.experiment.teams import find_team
from marl_coop.runs.played import PlayedEpisode
from marl_coop.runs.records import Credit, EpisodeRecord, TurnCredit, write_episodes
from marl_coop.runs.rundir import record_start
from rewards import RewardStack

CONFIG = Path(__file__).parents[1] / "configs/quickstart.yaml"
REWARDS = {"task_success": {}, "deference": {"weight": 0.5}, "capitulation": {"weight": 0.5}, "communication": {}}
HOSTILE = (
    "</script><script>window.struck = 1</script>",
    "<img src=x onerror='window.struck = 1'><b>bold</b>",
    "\x1b[2J\x1b[31m red \u202e turned \u0007 \ud800 {{ 7 * 7 }} [red]markup[/red] &lt;kept&gt;",
)


class Says:
    """Writes a text in front of what a partner of a kind replies."""

    def __init__(self, text: str, partner):
        self.text, self.partner = text, partner

    def reply(self, env: CoopEnv, seat: Seat) -> str:
        return f"{self.text} {self.partner.reply(env, seat)}"


def played(
    count: int, partner: str = "ideal", env: str = "PairedFunctions", says: str = "", **arguments
) -> list[Episode]:
    """Episodes of the same tasks for every partner, who sits in all seats."""
    game = make(env, **arguments)
    player = find_partner(partner, game)
    player = Says(says, player) if says else player
    return [play(game, dict.fromkeys(game.seats, player), seed) for seed in range(count)]


def evaluation_folder(folder: Path, who: Sequence[str], *conditions: dict, episodes: int = 6) -> Path:
    """The folder of an evaluation of scripted teams as `marl-coop eval` leaves it."""
    battery = Battery.model_validate({"floor": None, "episodes": episodes, "conditions": list(conditions)})
    plan = make_plan(battery, [find_team(name) for name in who], load_config([CONFIG]), "battery.yaml")
    play_battery(plan, folder)
    return folder


def credit(episode: Episode) -> Credit:
    """What might have been learned from an episode: every word is a token, the first of them a surprise."""
    turns = {
        seat: tuple(
            TurnCredit(
                value=0.25,
                target=0.5,
                advantage=-1.5,
                tokens=tuple(turn.reply.split()),
                logprobs=tuple(-2.5 if i == 0 else -0.01 for i in range(len(turn.reply.split()))),
            )
            for turn in episode.turns_of(seat)
        )
        for seat in episode.seats
    }
    return Credit(turns=turns, muted={episode.seats[0]: episode})


def run_folder(
    folder: Path,
    *,
    name: str = "seen",
    before: Sequence[Episode] = (),
    updates: Sequence[Sequence[Episode]] = (),
    after: Sequence[Episode] = (),
) -> Path:
    """The folder of a run as an `Experiment` leaves it, without its weights."""
    folder.mkdir(parents=True)
    configuration = {"model": {"name_or_path": "tiny"}, "training": {"num_updates": 5}, "rewards": REWARDS}
    record_start(folder, name, yaml.safe_dump(configuration), seed=7)
    stack = RewardStack.from_config(REWARDS)
    for number, episodes in enumerate(updates, start=1):
        file = folder / "episodes" / f"update-{number:04d}.0.jsonl"
        write_episodes(file, episodes, [stack.score(e) for e in episodes], [credit(e) for e in episodes])
        shares = {f"agent_0/advantage_share/{term}": 1 / len(REWARDS) for term in REWARDS}
        line = {"update": number, "step": number, "agent_0/entropy": 0.5 / number, "team/j": 0.1 * number} | shares
        with (folder / "metrics.jsonl").open("a") as out:
            out.write(json.dumps(line) + "\n")
    for label, episodes in (("before", before), ("after", after)):
        if episodes:
            write_episodes(folder / f"{label}.jsonl", episodes)
    if after:
        (folder / "results.json").write_text(json.dumps({"ceiling": {"j": {"value": 0.9}}}))
    return folder


def record_of(episode: Episode) -> PlayedEpisode:
    """An episode as it is read from a file that was played after training."""
    return PlayedEpisode(id="after:1", phase="after", update=None, record=EpisodeRecord(episode=episode))
