"""What seats are told: what to do in each phase, what the others said, what the scaffold repeats."""

from collections.abc import Mapping

from envs.core.config import EnvConfig
from envs.core.episode import Phase, Turn
from envs.core.task import Seat, Task

GAP = "___"  # in the place of an option


class Prompts:
    """The texts of `envs.core.env.CoopEnv`, which has the attributes that they speak of.

    They are few words, because they are repeated in every episode, and tokens are compute.
    """

    DECISION, OPTION = "decision", "option"  # what they are called

    task: Task
    phase: Phase | None
    seats: tuple[Seat, ...]
    config: EnvConfig
    allowance: int | None

    def instruction(self, seat: Seat, phase: Phase) -> str:
        """What to do in a phase."""
        if phase is Phase.TALK:
            ask = f"Write your {self._partners} one short message, or PASS."
            return f"{ask} {self._acts_instruction()}" if self.config.acts else ask
        if phase is Phase.FINAL:
            ask = self._final_instruction(seat)
            whose = "partner's" if len(self.seats) == 2 else "partners'"
            expect = f"First say what your {whose} answer will be: {self._line('Expect')}"
            return f"{expect}\n{ask}" if self.config.acts and len(self.seats) > 1 else ask
        line = self._line("Answer")
        return f"Reply: {line}" if len(self.task.decisions) == 1 else f"Reply with a line for each: {line}"

    def _ask(self, seat: Seat) -> str:
        """What to do now, and how long the reply may be."""
        ask, most = self.instruction(seat, self.phase), self.allowance
        return ask if most is None else f"{ask} At most {most} words."

    @property
    def _partners(self) -> str:
        return "partner" if len(self.seats) == 2 else "partners"

    @property
    def _team(self) -> str:
        """The seats, as one of them is spoken to."""
        others = len(self.seats) - 1
        return "You" if not others else f"You and your {f'{others} ' if others > 1 else ''}{self._partners}"

    def _line(self, word: str) -> str:
        """The form of a line that names an option."""
        line = f"{self._head(word)}: <{self.OPTION}>"
        return f"{line} (<confidence>%)" if self.config.confidences else line

    def _head(self, word: str) -> str:
        return word if len(self.task.decisions) == 1 else f"{word} <{self.DECISION}>"

    def _final_instruction(self, seat: Seat) -> str:
        stub = self.task.stubs.get(seat)
        if self.config.scaffold and stub:
            return f"Answer again, then fill in: {self.reference_work(seat, GAP)}"
        return f"Answer again, then write {stub}." if stub else "Answer again."

    def _acts_instruction(self) -> str:
        return (
            f"A line can be an act, {self._head('<act>')}: <{self.OPTION}>. "
            f"Acts: Propose, Challenge, Concede, Inform, Commit. Ask and Retract need no {self.OPTION}."
        )

    def _sources(self, seat: Seat) -> list[str]:
        """What the seat was told of each decision and how good its source is, as the scaffold repeats it."""
        return [
            f"Your source: {d.told(seat)}" if d.is_estimate else f"Your {d.quality(seat)} source: {d.belief[seat]}"
            for d in self.task.decisions
        ]

    def _news(self, seat: Seat, turns: Mapping[Seat, Turn]) -> str:
        """The next observation: what the partners just said, where they could talk, and what to do now."""
        recalled = self._sources(seat) if self.config.scaffold and self.phase is Phase.FINAL else []
        return "\n".join([*self._told(seat, turns), *recalled, self._ask(seat)])

    def _told(self, seat: Seat, turns: Mapping[Seat, Turn]) -> list[str]:
        """The lines on what the other seats said to this one in the last step."""
        said = [turn for turn in turns.values() if turn.agent != seat and turn.phase is Phase.TALK]
        named = [("Partner" if len(self.seats) == 2 else turn.agent, turn.message) for turn in said]
        return [f"{name}: {message}" if message else f"{name} said nothing." for name, message in named]
