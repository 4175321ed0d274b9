"""The model card of an adapter: what it is made on and trained on, how to load it, and what came of it."""

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from marl_coop.bases import WHEEL

WHEEL_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"  # that the wheel holds

SCRIPTS = {"marl-coop", "accelerate", "torchrun"}  # that are Python's own

CARD = """---
{{ card_data }}
---

# {{ adapter }} of {{ about.run }}

A LoRA adapter, one of a team that was trained together by marl-coop: to defer when the other is right, to hold when it
is right itself.

- Base: `{{ about.base }}`{% if about.local %}, a folder where it was trained: put yours in its place{% endif %}
- Environment: `{{ about.environment }}`{% if about.families %}, families {{ about.families }}{% endif %}
- Protocol: one reply in each phase: {{ about.phases | join(", ") }}
- Seed: {{ about.seed }}{% if about.commit %}, commit `{{ about.commit }}`{% endif %}

System message:

{{ fence }}text
{{ about.system }}
{{ fence }}

## Load it

With PEFT, from the folder that holds the one of the adapter:

```python
{{ peft }}
```

With vLLM:

```bash
{{ vllm }}
```

## Results

{{ about.judged_on }} Brackets are 95 % intervals.

| {{ columns | join(" | ") }} |
|{% for _ in columns %}---|{% endfor %}
{% for row in rows %}| {{ row | join(" | ") }} |
{% endfor %}
## Made by
{% if about.processes > 1 %}
In {{ about.processes }} processes:
{% endif %}
```bash
{{ command }}
```
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a card says of a run.

    `base` is the base model as the adapter's configuration names it, which is no id of the Hub where it was a `local`
    folder, `dtype` that of its weights in the run, `rank` the adapter's, `phases` those of an episode in order,
    `judged_on` a sentence that says on which instances it has its results, `commit` that of the code, None where it is
    in no checkout, and `processes` how many the command started.
    """

    run: str
    base: str
    local: bool
    dtype: str
    rank: int
    environment: str
    families: str
    system: str
    phases: Sequence[str]
    seed: int
    judged_on: str
    commit: str | None = None
    processes: int = 1


def model_card(
    adapter: str, about: About, command: Sequence[str], columns: Sequence[str], rows: Sequence[Sequence[str]]
) -> ModelCard:
    """The card of one adapter of a run.

    Args:
        adapter: its name, which is that of its folder.
        about: the run.
        command: words of the command that made the run, as `sys.orig_argv` has them; of an absolute path, its last part
            is told.
        columns, rows: the table of results, as text.
    """
    base = WHEEL_MODEL if about.base == WHEEL else about.base
    ticks = max([len(run) for run in re.findall("`+", about.system)], default=0)
    data = ModelCardData(
        base_model=None if about.local else base,
        library_name="peft",
        pipeline_tag="text-generation",
        tags=["lora", "multi-agent", "marl-coop"],
    )
    return ModelCard.from_template(
        data,
        template_str=CARD,
        adapter=adapter,
        about=about,
        fence="`" * max(3, ticks + 1),
        peft=peft_snippet(about.base, about.dtype, adapter),
        vllm=_vllm_snippet(about, adapter),
        command=_portable(command),
        columns=columns,
        rows=rows,
    )


def peft_snippet(base: str, dtype: str, adapter: str) -> str:
    """Python that puts the adapter on its base, with weights as in the run."""
    if base == WHEEL:
        load = f'from marl_coop import load_base\n\nbase, tokenizer = load_base("{WHEEL}", "{dtype}")'
    else:
        load = (
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            f'base = AutoModelForCausalLM.from_pretrained({json.dumps(base)}, dtype="{dtype}")\n'
            f"tokenizer = AutoTokenizer.from_pretrained({json.dumps(base)})"
        )
    return f'from peft import PeftModel\n{load}\nmodel = PeftModel.from_pretrained(base, "{adapter}")'


def _vllm_snippet(about: About, adapter: str) -> str:
    """The server's command line; the wheel's model is written into a folder first."""
    save = ""
    if about.base == WHEEL:
        load = "from marl_coop import load_base"
        write = f"[part.save_pretrained('base') for part in load_base('{WHEEL}', '{about.dtype}')]"
        save = f'python -c "{load}; {write}"\n'
    model = "base" if about.base == WHEEL else about.base
    rank = next(size for size in (8, 16, 32, 64, 128, 256, 320, 512, about.rank) if size >= about.rank)
    words = ["vllm", "serve", model, "--dtype", about.dtype, "--enable-lora", "--max-lora-rank", str(rank)]
    return save + shlex.join([*words, "--lora-modules", f"{adapter}={adapter}"])


def _portable(command: Sequence[str]) -> str:
    """A command without the folders of the machine where it ran: of an absolute path, the last part stays.

    >>> _portable(["/home/me/.venv/bin/python", "train.py", "--config", "/home/me/a b.yaml", "model=/data/base"])
    "python train.py --config 'a b.yaml' model=base"
    >>> _portable(["/home/me/.venv/bin/python", "/home/me/.venv/bin/marl-coop", "train"])
    'marl-coop train'
    """
    if {Path(word).name for word in command[1:2]} & SCRIPTS:  # is found by its name, and is no file beside
        command = command[1:]
    split = ([part for part in word.partition("=") if part] for word in command)
    return shlex.join("".join(Path(p).name if Path(p).is_absolute() else p for p in parts) for parts in split)
