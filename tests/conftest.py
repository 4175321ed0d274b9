"""Settings for every test: no network, no tracker, no deadline for single examples of hypothesis on a busy machine."""

import os

from hypothesis import settings

os.environ |= {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled", "TOKENIZERS_PARALLELISM": "false"}

settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")
