"""What a brief calls the sources of its seats: names that say, in words, how good each is."""

from dataclasses import dataclass, replace

import numpy as np

from envs.core.task import Decision, Seat


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What a brief may name as its source. The words of an estimate say nothing about how good it is."""

    strong: tuple[str, ...]
    weak: tuple[str, ...]
    measured: tuple[str, ...]


FEW_SOURCES = Sources(  # an article is enough to tell which are reliable (docs/results/sources.md)
    strong=(
        "the signed spec",
        "the merged RFC",
        "the release notes",
        "the owner's test log",
        "the API contract",
        "the production config",
        "the approved change request",
        "the audited schema",
    ),
    weak=(
        "an old draft",
        "a stale wiki",
        "a hallway chat",
        "a vague memory",
        "a first guess",
        "an unsigned note",
        "a forum post",
        "a rumour",
    ),
    measured=(
        "the load test",
        "the night trace",
        "the bench run",
        "the field log",
        "a staging probe",
        "a sample count",
        "a pilot run",
        "a lab meter",
    ),
)
WIDE_SOURCES = Sources(
    strong=(
        *FEW_SOURCES.strong,
        "a ratified standard",
        "published changelogs",
        "a passing test",
        "the tagged commit",
        "compiler diagnostics",
        "a locked manifest",
        "vendor datasheets",
        "committed fixtures",
        "a signed purchase order",
        "the frozen interface",
        "a primary source",
        "deployed binaries",
        "a final blueprint",
        "the registered protocol",
        "a database constraint",
        "the lead's decision",
        "the current style guide",
        "a proven theorem",
        "a reproduced experiment",
        "security audits",
        "a validated dataset",
        "the type checker",
        "the archived original",
        "a court ruling",
        "an accepted proposal",
        "live dashboards",
        "a master copy",
        "the maintainer's sign-off",
        "pinned dependencies",
        "a shipped header",
        "a stamped drawing",
        "fresh measurements",
        "the expert's report",
        "enforced policy",
        "a canonical example",
        "an original invoice",
        "written requirements",
        "the latest stable build",
        "an executive resolution",
        "matching checksums",
        "the authoritative roster",
        "a full regression suite",
        "the textbook definition",
        "a contractual guarantee",
        "a unanimous decision",
        "safety clearance",
        "the version in production",
        "working code",
        "an exact log line",
        "the granted patent",
        "government standards",
        "acceptance criteria",
        "a backed-up ledger",
        "the golden file",
        "a tested migration",
        "the architect's ruling",
    ),
    weak=(
        *FEW_SOURCES.weak,
        "a hazy recollection",
        "the outdated slide",
        "an abandoned branch",
        "the unfinished sketch",
        "a cropped screenshot",
        "the expired email",
        "a deleted comment",
        "idle jokes",
        "the misheard remark",
        "a stranger's tweet",
        "the scribble on a napkin",
        "the unread support ticket",
        "a deprecated example",
        "rough ideas",
        "the untested patch",
        "a colleague's whim",
        "the bad machine translation",
        "broken links",
        "a dubious blog",
        "the early prototype",
        "faded stickers",
        "the hasty summary",
        "far-fetched theories",
        "a second-hand story",
        "the discarded plan",
        "the superseded version",
        "a beginner's hope",
        "the random reply",
        "a rhetorical question",
        "a fleeting impression",
        "the rejected proposal",
        "a sloppy copy",
        "old habits",
        "the careless typo",
        "coin tosses",
        "the incomplete transcript",
        "corrupted files",
        "unproven assumptions",
        "the fuzzy photo",
        "the obsolete tutorial",
        "spam messages",
        "the disputed claim",
        "a passing remark",
        "the ancient readme",
        "pub conversation",
        "an anecdote",
        "wishful thinking",
        "the garbled voicemail",
        "a leftover comment",
        "the retracted article",
        "imagined cases",
        "the shaky inference",
        "whispered tips",
        "somebody's opinion",
        "the lost memo",
        "misprints",
    ),
    measured=FEW_SOURCES.measured,
)
HELD_OUT_SOURCES = Sources(  # no word of those in training, articles included, so what was learned there does not help
    strong=(
        "certified documentation",
        "legally binding terms",
        "our official handbook",
        "verified records",
        "peer-reviewed results",
        "accredited inspection findings",
        "sworn testimony",
        "notarised minutes",
    ),
    weak=(
        "office gossip",
        "blurry handwriting",
        "half-remembered advice",
        "wild hunch",
        "lunchtime banter",
        "anonymous graffiti",
        "unconfirmed speculation",
        "our daydream",
    ),
    measured=(
        "some sensor readings",
        "quarterly telemetry",
        "weekly benchmark",
        "sampled packets",
        "manual stopwatch",
        "counter snapshots",
        "profiler output",
        "calibration data",
    ),
)
SOURCES = {"few": FEW_SOURCES, "wide": WIDE_SOURCES, "held_out": HELD_OUT_SOURCES}


def draw_source(decision: Decision, seat: Seat, rng: np.random.Generator, sources: Sources) -> str:
    """A name for the seat's source: `the signed spec`. That of an estimate says nothing about how good it is, nor does
    the name where the cue is hidden."""
    kinds = {"strong": sources.strong, "weak": sources.weak, "unknown": sources.measured}
    names = sources.measured if decision.is_estimate else kinds[decision.cue[seat]]
    return names[rng.integers(len(names))]


def sourced(decision: Decision, rng: np.random.Generator, sources: Sources) -> Decision:
    """The decision with a name for the source of every seat (`draw_source`)."""
    return replace(decision, source={seat: draw_source(decision, seat, rng, sources) for seat in decision.cue})
