__version__: str

from .config.errors import ConfigError as ConfigError
from .config.schema import Config as Config
from .config.schema import load_config as load_config
from .evaluation.audit import audit as audit
from .evaluation.evaluate import evaluate as evaluate
from .experiment.experiment import Experiment as Experiment
from .players import BASE as BASE
from .players import Mix as Mix
from .policy.loading import load_base as load_base
from .policy.team import TeamPolicy as TeamPolicy
from .ppo.config import MultiAgentPPOConfig as MultiAgentPPOConfig
from .ppo.trainer import MultiAgentPPOTrainer as MultiAgentPPOTrainer
from .rollout.chat import Chat as Chat
from .rollout.runner import RolloutRunner as RolloutRunner
