"""Audit the presets and write down what came of it.

    python benchmarks/audit.py --episodes 400

writes docs/audit.md: what every exploit earns under each preset, on each environment without a repository.
"""

import argparse
import sys
from pathlib import Path

import envs
from envs.scripted.honest import IDEAL
from marl_coop.cli import run_script
from marl_coop.cli.arguments import count
from marl_coop.config.schema import load_config
from marl_coop.evaluation.audit import MODES, Audited, audit, play_exploits
from rewards import RewardStack

PRESETS = ("balanced", "task_only", "naive_bonus", "approval")
ACTS = {"acts": True, "rounds": 2}
ENVIRONMENTS = (envs.DesignReview(**ACTS), envs.PairedFunctions(**ACTS), envs.MoonSurvival(), envs.Handover())
HEADINGS = dict(zip(MODES, ("One cheat and an ideal partner", "Two of a kind"), strict=True))

INTRODUCTION = """\
# Does honest play pay?

`python benchmarks/audit.py --episodes {episodes}` plays every policy of `envs/scripted/exploits.py`, and in \
`Handover` those of `envs/scripted/handover.py`, without a language model: `DesignReview` and `PairedFunctions` with \
acts and two rounds of talk, `MoonSurvival` and `Handover` by default. `marl-coop audit --config my.yaml` does it for \
rewards of your own.

A policy is honest play, called ideal, with one habit changed. It plays either alone against an ideal partner, which \
asks whether it pays one agent to cheat, or with its like in both seats, which asks whether it pays the team. U is the \
team's result and J the policy's own CDR - CR. A cell of a preset has the mean return and in brackets the edge: that \
minus what honest play earned on the same tasks. ± is half of a 95 % interval over the {episodes} tasks. **Bold** is \
what honest play does not beat for certain. Tables are in the order of `balanced`.

- `balanced`: honest play is first, but for the ties that stand here.
- Known not to show here: a seat that names a blend at 0 % where its source is doubtful (`doubter`) plays and talks \
like honest play, and loses 0.0025 of a report's score, which so many tasks cannot tell from 0; nor does one that \
names another option there at the probability that this has (`second-guesser`) and loses 0.0019 (0.0023 ± 0.0009 over \
6,000 tasks of `PairedFunctions`). That no report \
is better than the own claim at its true probability is a test of its own, and so is that no forecast of the partner \
is better than the ideal's. Never to promise is no exploit: between honest seats a promise tells nothing that the \
claims do not, so the ideal makes none.
- Known not to hold without confidences (`confidences: false`): before the talk a seat with a doubtful source earns \
0.022 more by another option than its source claims (`second-guesser`), where every decision has three plain options. \
Its claim is right in 27.5 % of tasks and each of two others in 36.25 %, which only a confidence can say, and a right \
prior is worth 0.25. What it plays, tells and ends on stays honest.
- Known to be a tie: two seats of `Handover` that write two facts into one entry earn exactly what honest play does, \
as what it says is within the allowance; so does a seat with a doubtful source that says nothing (`quiet-novice`) or \
something else, beside a partner that goes by its own reliable one (an estimate takes both, and there it costs); and \
code that survives costs nothing, however useless it is: comments and, in `CooperBench`, public names that nobody uses.
- Known to be a tie with `expert: hidden`: nobody can tell whose source is reliable, so honest play goes by what \
`agent_0` was told where two claims are as likely, and any other rule that both follow is as good (`follow-the-first`, \
`log-roller`); nobody has a reliable source to hide (`sandbagger`, `mute-expert`). These four are left out there.
- `Handover` is audited where the memory holds every fact, 7 tokens for each; with less room denser notes are better \
than one fact in an entry, so nobody can say what honest play is.
- `CooperBench` is in no table, as its tests take their time. Where gold patches merge, honest play writes its own and \
says nothing; the policies of `envs/scripted/patch_exploits.py` earn less, on the toy repository of the tests. Where \
they conflict nobody can say what honest play is. Writing the partner's change too is charged where that has new names.
- `PairedFeatures` is in no table, as git takes its time: `marl-coop audit --config \
configs/examples/paired_features.yaml --config configs/presets/balanced.yaml --episodes 50` finds honest play first \
there, too.
- Known not to hold in `MoonSurvival` with `expert: hidden`: honest play ranks between both lists, where U's distances \
are least. J counts such a rank as wrong where a list had it right, so who holds on to either list has the better J (0 \
against -0.2, with six items), and the lower U.
- `task_only`: what does not change the result costs nothing: to hide what one knows, to talk on, to claim any \
confidence, to promise anything.
- `naive_bonus`: the sandbagger wins. It is paid for coming round to what it knew all along. Promises and code are not \
looked at.
- `approval`: agreeing wins. Who always defers earns more than who weighs the sources, at the price of U. Two who are \
certain of the same option whatever they know earn the most, and certainty alone is paid too. Only `agent_0` is paid, \
so these figures, over both seats, are half of its own.

## What has no price

Words cost what they are, wherever a partner reads them: messages, acts, entries of a memory, refusals by it. What is \
left open, with the most that it can carry:

- Whether a seat speaks at all: 1 bit for each message. Up to `free_tokens` for each topic are free, and a token can \
carry some 140 bits for seats that agree on a code (`envs/core/tokens.py`); cross-play with another team shows one.
- When a branch is submitted, which the partner is told: log2(rounds) bits once, 2.6 by default.
- A merge forecast (`forecast: true`) names no word of one seat alone, only what the base defines or both do. Which of \
these a seat touches is its choice: 1 bit a round for each name that the partner touches or uses, and log2(lines) \
bits for where a conflict is.
- With a shared `budget` the limit of the next reply tells how much was written before, sealed replies included: at \
most log2(budget) bits a step.
- In `Handover`, a summary that a seat asks for and does not write: 1 bit for each. The id of an entry tells how many \
were written before it: log2(entries) bits, with the entry that is paid for.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=count, default=400, help="tasks per policy (default: 400)")
    parser.add_argument("--output", type=Path, default=Path("docs/audit.md"), help="default: docs/audit.md")
    args = parser.parse_args()
    episodes = args.episodes
    stacks = [RewardStack.from_config(load_config([f"configs/presets/{name}.yaml"]).rewards) for name in PRESETS]
    lines = [INTRODUCTION.format(episodes=episodes)]
    for env in ENVIRONMENTS:
        name = type(env).__name__
        played = play_exploits(env, episodes, label=name)
        audited = [{(row.policy, row.mode): row for row in audit(stack, played)} for stack in stacks]
        lines += [f"## {name}", ""]
        for policy, needs in played.left_out.items():
            lines += [f"`{policy}` is left out: without {needs} it plays like the ideal.", ""]
        for mode in MODES:
            names = [policy for policy, played_in in played.episodes if played_in == mode]
            rows = [[rows[policy, mode] for rows in audited] for policy in names]
            lines += [f"### {HEADINGS[mode]}", "", f"| policy | U | J | {' | '.join(PRESETS)} |", "|---" * 7 + "|"]
            lines += [line(*row) for row in sorted(rows, key=lambda row: -row[0].edge.value)] + [""]
    args.output.write_text("\n".join(lines))


def line(*row: Audited) -> str:
    """One policy: U, J and, for each preset, what it earns and by how much that differs from honest play."""
    j = f"{row[0].j:.2f}" if row[0].j else "not defined"
    return f"| {' | '.join([row[0].policy, f'{row[0].utility:.2f}', j, *map(cell, row)])} |"


def cell(audited: Audited) -> str:
    if audited.policy == IDEAL:
        return f"{audited.earned:.3f}"
    edge = f"{audited.earned.value:.3f} ({audited.edge:.3f})"
    return edge if audited.beaten else f"**{edge}**"


if __name__ == "__main__":
    sys.exit(run_script(main))
