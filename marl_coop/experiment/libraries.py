"""What libraries say, made fit for a user."""

import warnings

import transformers


def quiet_libraries() -> None:
    """Silence what libraries say of their own next versions and Python of a model's code, and the bars of what takes a
    second.
    """
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers|trl|peft|accelerate")
    warnings.filterwarnings("ignore", message=".*pin_memory.*")
    warnings.filterwarnings("ignore", module="<unknown>")  # where `ast.parse` read what a model wrote
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
