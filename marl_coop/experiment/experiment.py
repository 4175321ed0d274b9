"""A run of a configuration: warm up, evaluate, train, evaluate again, say what came of it.

Experiment(config).run()                    a new run
Experiment.resume("runs/first").run()       goes on from the last checkpoint
Experiment.from_run("runs/first")           opens a run to look at it, without a trainer
"""

import shlex
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Self

from accelerate.utils import broadcast_object_list
from transformers import set_seed

from envs.core.episode import Episode
from envs.core.seeds import Stream
from envs.sandbox.scratch import remove_abandoned
from marl_coop.config import policies
from marl_coop.config.checks import check_config, held_out_in_training
from marl_coop.config.schema import Config
from marl_coop.engines import Engine
from marl_coop.evaluation.evaluate import COLUMNS, evaluate
from marl_coop.experiment import checks, setup
from marl_coop.experiment.callbacks import (
    AlarmBell,
    CurriculumLevel,
    HeldOut,
    MetricsFile,
    UpdateProgress,
    show_progress,
)
from marl_coop.experiment.console import run_console
from marl_coop.experiment.libraries import quiet_libraries
from marl_coop.experiment.outcome import RunOutcome, about_run
from marl_coop.experiment.phases import EVALUATION, WARM_UP, PhaseReport
from marl_coop.experiment.recorded import recorded_before, recorded_config
from marl_coop.experiment.recorder import RunRecorder
from marl_coop.experiment.start import check_start
from marl_coop.experiment.trackers import OURS, Trackers
from marl_coop.policy.allocator import keep_freed_memory
from marl_coop.policy.team import TeamPolicy
from marl_coop.ppo.experience import reads_start
from marl_coop.ppo.processes import naming_lost_processes
from marl_coop.ppo.trainer import MultiAgentPPOTrainer
from marl_coop.profiling import phase, profiling
from marl_coop.rollout.runner import RolloutRunner
from marl_coop.runs import rundir
from marl_coop.runs.checkpoints import (
    all_checkpoints,
    has_ended,
    set_end_aside,
    set_later_aside,
    step_of,
    writing,
)
from marl_coop.runs.lock import held
from marl_coop.runs.played import forget_played_after
from marl_coop.stops import STOPPED, hear_stops
from rewards.metrics import HEADLINES, of_players, rates


class Experiment:
    """A run: its folder, and what was made of its configuration, each object once.

    Making one loads the base model and refuses whatever can be known before the run; it writes nothing.

    Args:
        config: what to run.
        folder: of a run that is there, which the configuration is of; None: it is a new run.

    Attributes:
        config: as given, with the dtype that the first process settled, or as the run's folder has it.
        folder: the run's folder; None until a new run begins.
        name: what the run is called in its folder, its table and the trackers.
        args: the section `training`.
        base, tokenizer: the frozen base model and its tokenizer.
        env, evaluation_env: an environment as in training, without a curriculum, and one as in evaluation.
        chat: puts text into token ids and back, in training.
        rewards: the terms with their weights or schedules.

    Raises:
        ConfigError: a value that cannot be used.
    """

    def __init__(self, config: Config, folder: Path | None = None):
        if folder is None:
            check_start(config)
        keep_freed_memory()
        quiet_libraries()
        self.folder = folder
        self.name = config.title if folder is None else rundir.recorded(folder)["name"]
        self.checkpoint: Path | None = None  # where a resumed run goes on
        self._found: list[Path] = []  # its checkpoints when that was chosen
        self.trackers = Trackers()  # none until it runs
        self.phases: PhaseReport | None = None
        self.args = setup.training_arguments(config)
        self.main = self.args.process_index == 0
        self.config = config = config.settled(*broadcast_object_list([setup.dtype_of(config)]))
        checks.check_shares(config, self.args)
        set_seed(config.seed)
        self.env, self.evaluation_env = setup.make_environments(config)
        self.base, self.tokenizer = setup.load_model(config)
        self.chat = setup.make_chat(config, self.base, self.tokenizer, self.env)
        lengths = setup.settle_limits(config, self.args, self.base, self.tokenizer)
        self.longest_chat = lengths.chat(self.args.max_tokens)
        self.rewards = config.reward_stack
        self.console = run_console(quiet=not self.main)

    @classmethod
    def resume(cls, place: str | Path, config: Config | None = None) -> Self:
        """The experiment that `run` goes on with.

        Args:
            place: a run's folder, whose last checkpoint is taken, or one of its checkpoints. A run that has none yet
                begins again.
            config: the run's own with what may change (`marl_coop.config.schema.MAY_CHANGE`); None: as it is.

        Raises:
            RunError: the place is no run, its checkpoint is damaged or of another base or adapters, or those of other
                runs that it goes on with have changed.
            ConfigError: `config` changes what a run cannot change, or ends before the checkpoint.
        """
        folder, checkpoint = rundir.locate(Path(place))
        found = all_checkpoints(folder)
        recorded = recorded_config(folder)
        if config is not None:
            config = config.going_on(recorded)
        check_config(config or recorded)
        experiment = cls(config or recorded, folder)
        experiment.checkpoint, experiment._found = checkpoint, found
        if checkpoint:
            checks.check_length(experiment.config, experiment.args, checkpoint)
            checks.check_adapters(experiment.config, experiment.base, checkpoint)
        start = not checkpoint or reads_start(experiment.args, experiment.rewards)
        checks.check_of_other_runs(experiment.config, folder, start)
        return experiment

    @classmethod
    def from_run(cls, folder: str | Path, checkpoint: str | None = None) -> Self:
        """A run as its folder has it, be it finished, stopped or still running; nothing is written there.

        Args:
            checkpoint: name of the checkpoint whose adapters to take, such as "checkpoint-12", or "best"; None: the
                trained ones of a finished run, else those of the last checkpoint.

        Raises:
            RunError: the folder is no run, or has no such checkpoint or no adapters yet.
        """
        saved = rundir.saved_policy(Path(folder), checkpoint)
        experiment = cls(recorded_config(Path(folder)), Path(folder))
        experiment.policy.load(saved)
        return experiment

    @property
    def run_folder(self) -> Path:
        """The run's folder. Raises RuntimeError before the run begins."""
        if self.folder is None:
            raise RuntimeError("the run has not begun and has no folder yet: call run()")
        return self.folder

    @property
    def _recorder(self) -> RunRecorder:
        return RunRecorder(self.run_folder, self.args.process_index)

    @cached_property
    def policy(self) -> TeamPolicy:
        """The team on its base; made when it is first asked for, because a warm-up wants the base bare."""
        return setup.make_policy(self.config, self.base, self.args).to(self.args.device)

    @cached_property
    def engine(self) -> Engine:
        """What samples the replies of the team, in training and in evaluation."""
        return setup.make_engine(self.policy, self.args)

    @cached_property
    def evaluator(self) -> RolloutRunner:
        """Plays the environment of the section `evaluation`."""
        chat = setup.make_chat(self.config, self.base, self.tokenizer, self.evaluation_env)
        past = self.policy.past
        return setup.make_evaluator(self.config, self.evaluation_env, self.engine, chat, self.args, past)

    # --------------------------------------------------------------------------------------------------- a run

    def run(self, profile: bool = False) -> None:
        """The whole of it, or one line where the run has ended. Ctrl-C, SIGTERM and SIGHUP stop it with exit code 130
        and one line that says how to go on; an error has that line as a note.

        Args:
            profile: print where the time of each update went, and that of the whole.

        Raises:
            ConfigError: the model is not sampled from and trained as its own forward means.
            RunError: another process runs it, or its folder cannot be made.
            LostProcessError: another of its own processes has ended.
        """
        if self.folder is not None and self._trained and has_ended(self.folder):
            self.console.print(
                f"{str(self.folder)!r} has ended, and results.json says what came of it: nothing is left to do; a "
                "larger training.num_updates trains it further, and marl-coop eval plays it again"
            )
            return
        hear_stops()
        with naming_lost_processes():
            self.check_model()
        try:
            with ExitStack() as stack, naming_lost_processes():
                self._begin(stack)
                if profile:
                    watched, steps = stack.enter_context(profiling()), self.args.steps_per_update
                    self.phases = PhaseReport(watched, steps, self.console.print)
                    stack.callback(self.phases.print_whole)
                self.warm_up()
                before = self._known_before() or self._play_and_record("before")
                self.train()
                self.report(before, self._play_and_record("after"))
        except KeyboardInterrupt:
            self.console.print(f"stopped; {rundir.going_on(self.folder)}")
            raise SystemExit(STOPPED) from None
        except Exception as error:
            then = rundir.going_on(self.folder)
            error.add_note(f"{then[0].upper()}{then[1:]}.")
            raise

    @property
    def _trained(self) -> bool:
        """Whether it goes on from a checkpoint after which no update is left."""
        return self.checkpoint is not None and step_of(self.checkpoint) >= self.args.max_steps

    def check_model(self) -> None:
        """See by a few chats that the model carries the adapters, and is sampled from and trained as its own forward
        means, that vLLM plays it where that is the engine, and that saved adapters to start from are there and fit.

        Raises:
            ConfigError: it is not; the message says what differs.
        """
        for check in checks.checks_of_start(self.config, self.args, self.base, self.longest_chat).values():
            check()

    def _begin(self, stack: ExitStack) -> None:
        """Make or enter the run's folder, keep others out of it until `stack` is closed, and write down the start."""
        if self.folder is None:
            made = rundir.new_folder(self.name, self.config.output_dir) if self.main else None
            self.folder = Path(*broadcast_object_list([str(made)]))
        folder = self.folder
        self.args.output_dir = str(folder)
        self.args.run_name = self.args.run_name or f"{self.name}-seed{self.config.seed}"
        remove_abandoned()
        if self.main:
            stack.enter_context(held(folder))
            if all_checkpoints(folder) != self._found:
                raise rundir.RunError(f"{str(folder)!r} was run by another process until now: start this again")
            modules = (Path.cwd(), *self.config.folders)
            learners = policies.learners(self.config.policies)
            others = checks.of_other_runs(self.config)
            rundir.record_start(folder, self.name, self.config.to_yaml(), self.config.seed, modules, learners, others)
        self.console.print(f"run directory: {folder}")
        if held_out := held_out_in_training(self.config):
            self.console.print(f"note: {held_out}")
        names = set(self.args.report_to or ())
        self.args.report_to = sorted(names - OURS)
        if self.main:
            done = step_of(self.checkpoint) // self.args.steps_per_update if self.checkpoint else 0
            say = self.console.print
            self.trackers = Trackers.of_run(stack, names, folder, self.name, self.config, self.args, done=done, say=say)
            forget_played_after(folder, done)
            superseded = () if self._trained else set_end_aside(folder)
            for line in chain(superseded, set_later_aside(folder, self.checkpoint) if self.checkpoint else ()):
                self.console.print(line)

    @phase(WARM_UP, whole=True)
    def warm_up(self) -> None:
        """Teach every adapter the format of replies, which comes from the cache where that has it; or begin with saved
        adapters, which know it. These are the first of the past selves.

        Raises:
            ConfigError: there are no such adapters, or they do not fit.
            RunError: they are damaged.
            RuntimeError: something has played or been trained already.
        """
        if "policy" in vars(self):
            raise RuntimeError("warm_up comes before whatever plays: it trains on the bare base")
        saved = setup.starting_points(self.config, self.base)
        if not saved and self.config.warmup.steps:
            warm = setup.warm_up(self.config, self.base, self.tokenizer, self.chat)
            saved = dict.fromkeys(self.policy.adapters, warm)
        try:
            for adapter, folder in saved.items():
                self.policy.load_adapter(adapter, folder)
        except ValueError as error:  # a disk that lost something, a rate of the warm-up at which it diverged
            raise rundir.RunError(
                f"{error}; if it is a warm-up in the cache, remove the folder and start again"
            ) from error
        self.policy.snapshot_past(0)

    def evaluate(self, label: str = "evaluation") -> list[Episode]:
        """Play the unseen instances of the section `evaluation`; every process gets all episodes, in order.

        Args:
            label: what the progress bar says.
        """
        return self._play_unseen(label, Stream.EVALUATION)

    @phase(EVALUATION, whole=True)
    def _play_unseen(self, label: str, stream: Stream) -> list[Episode]:
        section = self.config.evaluation
        return evaluate(self.evaluator, section.episodes, section.seed, section.batch_size, label, stream)

    def _known_before(self) -> list[Episode]:
        """What an earlier start of the run played before training; [] if it was not done, or is no longer whole."""
        try:
            return recorded_before(self.run_folder, self.config.evaluation)
        except rundir.RunError as error:
            self.console.print(f"{error}: they are played again")
            return []

    def _play_and_record(self, label: str) -> list[Episode]:
        episodes = self.evaluate(label)
        self._recorder.judged(label, episodes)
        self.trackers.transcripts(label, episodes)
        return episodes

    def make_trainer(self, engine: Engine, **options: Any) -> MultiAgentPPOTrainer:
        """The trainer of this configuration, whose replies `engine` samples; `options` are further arguments of it."""
        return MultiAgentPPOTrainer(
            model=self.policy,
            args=self.args,
            make_env=setup.training_env(self.config, self.config.curriculum),
            rewards=self.rewards,
            processing_class=self.tokenizer,
            policies=setup.make_players(self.config, self.env, self.args, self.policy.past),
            system=self.chat.system,
            chat=self.chat,
            engine=engine,
            **options,
        )

    def train(self) -> None:
        """Train the adapters, from the checkpoint where the experiment was resumed, and save them in the folder."""
        config, folder = self.config, self.run_folder
        curriculum = config.curriculum
        trainer = self.make_trainer(
            self.engine,
            callbacks=[
                MetricsFile(folder / "metrics.jsonl", self.console.print),
                AlarmBell(folder / "alarms.jsonl", folder / "metrics.jsonl", self.console.print),
                *self.trackers.callbacks,
                *filter(None, [self.phases]),
            ],
            on_rollouts=self._recorder.rollouts,
        )
        show_progress(trainer, UpdateProgress(self.args.steps_per_update))
        if curriculum:
            trainer.add_callback(CurriculumLevel(curriculum, trainer.collector.metrics))
        section = config.evaluation
        held_out = HeldOut(trainer, self._measure_held_out, section.every, section.best, self.console.print)
        trainer.add_callback(held_out)
        try:
            trainer.train(resume_from_checkpoint=str(self.checkpoint) if self.checkpoint else None)
        except BaseException:
            with suppress(OSError):  # it is what stopped the run that is told
                self._recorder.curve()  # which a run that was stopped has too
            raise
        self._recorder.curve()
        with writing("the adapters", folder):
            trainer.save_model()

    def _measure_held_out(self, update: int) -> dict[str, float]:
        """Play unseen instances, others than those by which the run is judged in the end, and record them."""
        played = self._play_unseen(f"unseen, update {update}", Stream.VALIDATION)
        self._recorder.held_out(update, played)
        self.trackers.transcripts("held_out", played, update)
        metrics = {name: metric for name, metric in of_players(self.policy.adapters).items() if name in HEADLINES}
        return {name: rate for name, rate in rates(played, metrics).items() if rate is not None}

    def report(self, before: Sequence[Episode], after: Sequence[Episode]) -> None:
        """Say what came of the run: in the table that it prints, `results.json`, model cards and the trackers."""
        if not self.main:
            return
        folder, learners = self.run_folder, self.policy.adapters
        run = f"{self.name}, seed {self.config.seed}"
        outcome = RunOutcome.of(run, self.evaluation_env, learners, before, after)
        self.console.print(outcome.table)
        for text in outcome.alarms(folder / "metrics.jsonl"):
            self.console.print(f"alarm: {text}")
        start = rundir.recorded(folder)["starts"][0]
        judged_on = f"On {outcome.episodes} unseen instances, the same before and after."
        about = about_run(
            self.name, self.config, str(self.base.config.name_or_path), self.chat.system, self.env, judged_on, start
        )
        self._recorder.outcome(outcome, self.evaluation_env, about, learners, start)
        self.trackers.report(outcome.values, COLUMNS, outcome.rows)
        self.console.print(f"run directory: {folder}")
        self.console.print(f"to look at it: marl-coop view {shlex.quote(str(folder))}")
