"""Trains teams of LoRA policies: environments are in `envs`, reward terms in `rewards`, everything with torch here.

Importing this package loads no torch; a name does when it is first used and needs it.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
