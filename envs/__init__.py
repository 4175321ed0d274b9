"""Cooperative coding environments for PettingZoo. No torch in here: any PettingZoo user can play them.

>>> import envs
>>> env = envs.make("PairedFunctions", cue_reliability=0.9)
>>> observations, infos = env.reset(seed=7)
"""

from envs.core.env import CoopEnv
from envs.core.episode import Episode, Outcome, Phase, StopReason, Turn
from envs.core.task import Decision, HiddenTest, Seat, Task
from envs.design_review import DesignReview
from envs.handover.env import Handover
from envs.moon_survival import MoonSurvival
from envs.paired_features.env import PairedFeatures
from envs.paired_functions import PairedFunctions
from envs.registration import ENVIRONMENTS, find_environment, make

__all__ = [
    "ENVIRONMENTS",
    "CoopEnv",
    "Decision",
    "DesignReview",
    "Episode",
    "Handover",
    "HiddenTest",
    "MoonSurvival",
    "Outcome",
    "PairedFeatures",
    "PairedFunctions",
    "Phase",
    "Seat",
    "StopReason",
    "Task",
    "Turn",
    "find_environment",
    "make",
]
