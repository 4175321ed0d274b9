"""Reward terms: plain Python on episode records. `TERMS` is the list; a `RewardStack` scores an episode with some."""

from rewards.base import RewardBreakdown, RewardTerm
from rewards.baselines.approval import Approval
from rewards.baselines.naive_capitulation import NaiveCapitulation
from rewards.baselines.naive_deference import NaiveDeference
from rewards.baselines.naive_disagreement import NaiveDisagreement
from rewards.stack import TERMS, RewardStack, UnknownTerm, find_term
from rewards.terms.capitulation import Capitulation
from rewards.terms.commitment import Commitment
from rewards.terms.communication import Communication
from rewards.terms.consensus import Consensus
from rewards.terms.deference import Deference
from rewards.terms.do_no_harm import DoNoHarm
from rewards.terms.expectation import Expectation
from rewards.terms.foresight import Foresight
from rewards.terms.pushback import Pushback
from rewards.terms.rework import Rework
from rewards.terms.solo_gain import SoloGain
from rewards.terms.task_success import TaskSuccess

__all__ = [
    "TERMS",
    "Approval",
    "Capitulation",
    "Commitment",
    "Communication",
    "Consensus",
    "Deference",
    "DoNoHarm",
    "Expectation",
    "Foresight",
    "NaiveCapitulation",
    "NaiveDeference",
    "NaiveDisagreement",
    "Pushback",
    "RewardBreakdown",
    "RewardStack",
    "RewardTerm",
    "Rework",
    "SoloGain",
    "TaskSuccess",
    "UnknownTerm",
    "find_term",
]
