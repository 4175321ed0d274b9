"""Learning as CoMLRL's `MAGRPOTrainer` does it: a whole model for each agent, a turn of a chat at a time.

Its trainer is given the turns that ours played, each as a prompt and a completion with its advantage, and asked to
update each agent from them. Its play is `generate` with one prompt in a call, which is a contender of its own. It is
treated kindly: no reference model, so no pass for it, and as many optimisation steps as ours makes.
"""

import torch
from comlrl.trainers.reinforce.magrpo import (  # pyright: ignore[reportMissingImports]
    MAGRPOConfig,
    MAGRPOTrainer,
    NodeSample,
)

from contenders.common import Job, Played, Result, Stopwatch, peak_gib
from contenders.generate import load_peft
from marl_coop.ppo.batch import SeatSample


def run(job: Job) -> Result:
    agents = ("agent_0", "agent_1")
    loaded = [load_peft(job, (agent,)) for agent in agents]
    experiment, played = loaded[0][0], Played.load(job.played)
    samples = [
        [turn for row in played.rows if row.trace.adapter == agent for turn in _turns(row, seat)]
        for seat, agent in enumerate(agents)
    ]
    trainer = MAGRPOTrainer(
        agents=[model for _, model in loaded],
        num_agents=len(agents),
        tokenizer=experiment.tokenizer,
        reward_func=lambda *_: [],
        external_transition=lambda *_: [],
        args=MAGRPOConfig(
            num_agents=len(agents),
            agent_devices="cpu",
            train_batch_size=-(-len(samples[0]) // experiment.args.num_mini_batches),
            advantage_mode="raw",  # a group of one: its own mean would leave nothing to learn
            agent_learning_rate=experiment.args.learning_rate,
        ),
    )
    with Stopwatch() as watch:
        for seat in range(len(agents)):
            trainer._update_from_samples(seat, samples[seat])
    return Result(update=watch.seconds, update_tokens=played.chat_tokens, peak_gib=peak_gib())


def _turns(row: SeatSample, seat: int) -> list[NodeSample]:
    """What was written in a chat, each turn after all that came before it."""
    ids, turns = torch.tensor(row.trace.ids), row.trace.turns
    earned = [0.0] * len(turns) if row.advantages_K is None else row.advantages_K.tolist()
    return [
        NodeSample(
            agent_idx=seat,
            turn_idx=i,
            completions_data={
                "prompt_input_ids": ids[None, : turn.start],
                "completion_input_ids": [ids[turn.start : turn.stop]],
            },
            returns=[value],
            node_mean_reward=value,
            node_mean_return=value,
            node_env_step=0,
        )
        for i, (turn, value) in enumerate(zip(turns, earned, strict=True))
    ]
