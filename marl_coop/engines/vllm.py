"""vLLM beside the trainer, on the same device: `training.engine: vllm`.

vLLM runs in a process of its own that this one starts, with its own copy of the base. Replies are sampled
continuously: one that has ended lets its episode go on while others run. While the adapters learn, vLLM sleeps: its
weights move to the host's memory and its key-value cache is dropped (on a GPU; on a CPU vLLM cannot). A reply repeats
with its request's seed but for rounding, which depends on who else is in the batch; VLLM_BATCH_INVARIANT=1 in the
environment ends that where vLLM has the kernels.

Nothing here imports vllm before an engine is made or its options are checked.
"""

import dataclasses
import itertools
import os
import queue
import threading
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil
import torch

from envs.core.lookup import nearest
from envs.core.tokens import one_line
from marl_coop.engines.base import EngineError, FinishReason, Generation, Request
from marl_coop.engines.published import PublishedAdapters
from marl_coop.engines.served import ServedEngine, sampling_parameters
from marl_coop.players import BASE
from marl_coop.policy.adapters import reference_name
from marl_coop.policy.team import TeamPolicy

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM has kernels for
DEFAULTS = {"gpu_memory_utilization": 0.3, "disable_log_stats": True}  # the rest of the GPU is the trainer's
OURS = {  # options of vLLM that follow from the team, or without which log-probabilities would be wrong
    "model", "dtype", "skip_tokenizer_init", "generation_config", "logprobs_mode", "max_num_seqs", "enable_sleep_mode",
    "enable_lora", "max_loras", "max_cpu_loras", "max_lora_rank", "data_parallel_size", "tensor_parallel_size",
    "pipeline_parallel_size",
}  # fmt: skip

ENDED = "its process has ended"


def check_options(options: Mapping[str, Any]) -> None:
    """Check the options of the engine, without starting it.

    Args:
        options: fields of `vllm.EngineArgs`.

    Raises:
        ValueError: vLLM is not installed, has no such option, or it is not the user's to set.
    """
    try:
        arguments = _vllm().EngineArgs
    except ImportError as error:
        raise ValueError(f"vLLM is not there ({one_line(error)}): docs/scaling.md says how it is installed") from error
    known = {field.name for field in dataclasses.fields(arguments)} - OURS
    for name in options:
        if name in OURS:
            raise ValueError(f"{name!r} is set by the library, from the model, the adapters and training.max_rows")
        if name not in known:
            raise ValueError(f"vLLM has no option {name!r}; did you mean {nearest(name, known)!r}?")


class VLLMEngine(ServedEngine):
    """Samples with vLLM from the base of a team and its adapters.

    Args:
        policy: the team; its base was loaded by `from_pretrained`, and vLLM loads it from the same place.
        max_rows: replies that are sampled at the same time, at most.
        options: fields of `vllm.EngineArgs`, such as `gpu_memory_utilization` and `max_model_len`.

    Raises:
        EngineError: vLLM does not start.
    """

    def __init__(self, policy: TeamPolicy, max_rows: int, options: Mapping[str, Any]):
        super().__init__(policy, PublishedAdapters(policy))
        self._sleeps, self._asleep = _can_sleep(), False
        before = psutil.Process().children()
        with _failing("did not start"), _one_device(policy.device):
            arguments = _arguments(policy, max_rows, options)
            self._llm = _vllm().LLMEngine.from_engine_args(arguments, enable_multiprocessing=True)
        started = [process for process in psutil.Process().children() if process not in before]
        self._ended = threading.Event()
        told = self._llm.engine_core.outputs_queue
        threading.Thread(target=_tell_of_death, args=[started, self._ended, told], daemon=True).start()
        self._numbers = itertools.count(1)
        self._loras: dict[str, Any] = {}  # name -> vLLM's LoRARequest
        self._running: dict[str, tuple[Hashable, int]] = {}  # request id -> chat and version

    @property
    def max_positions(self) -> int:
        return self._llm.model_config.max_model_len

    def _start(self, request: Request, name: str, version: int) -> None:
        whole = _vllm("sampling_params").RequestOutputKind.FINAL_ONLY
        parameters = _vllm().SamplingParams(**sampling_parameters(request), detokenize=False, output_kind=whole)
        number = str(next(self._numbers))
        prompt = {"prompt_token_ids": request.ids}
        with self._asking("took no request"):
            self._llm.add_request(number, prompt, parameters, lora_request=self._loras[name])
        self._running[number] = request.chat, version

    def _wait(self) -> list[Generation]:
        done: list[Generation] = []
        while not done:
            with self._asking("failed while sampling"):
                outputs: list[Any] = self._llm.step()
            done = [self._generation(output) for output in outputs if output.finished]
        return done

    def _generation(self, output: Any) -> Generation:
        chat, version = self._running.pop(output.request_id)
        (reply,) = output.outputs
        if reply.finish_reason not in ("stop", "length"):
            raise EngineError(f"vLLM ended the reply of {chat!r} with {reply.finish_reason!r}")
        ids = list(reply.token_ids)
        return Generation(
            chat=chat,
            ids=ids,
            logprobs=[ranked[token].logprob for token, ranked in zip(ids, reply.logprobs, strict=True)],
            finish_reason=FinishReason(reply.finish_reason),
            version=version,
        )

    @contextmanager
    def _asking(self, how: str) -> Iterator[None]:
        """Asks only a process that has not ended: vLLM may not know yet, and would wait for an answer for ever."""
        with _failing(how):
            if self._ended.is_set():
                raise RuntimeError(ENDED)
            yield

    def _drop(self) -> None:
        with _failing("did not drop its requests"):
            self._llm.abort_request([*self._running])
        self._running = {}

    def _load(self, new: Mapping[str, Path], old: Mapping[str, Path]) -> None:
        """Numbers the new adapters: vLLM reads one when it is first asked for, and drops the longest unused. A number
        is never used again, because vLLM knows weights by it."""
        for name in old:
            del self._loras[name]
        for name, folder in new.items():
            self._loras[name] = _vllm("lora.request").LoRARequest(name, next(self._numbers), str(folder))

    def submit(self, request: Request) -> None:
        if self._asleep:
            with self._asking("did not wake up"):
                self._llm.wake_up()
            self._asleep = False
        super().submit(request)

    def sleep(self) -> None:
        super().sleep()
        if self._sleeps and not self._asleep:
            with self._asking("did not go to sleep"):
                self._llm.sleep(level=1)
            self._asleep, self._ready = True, False


def check_team(policy: TeamPolicy, max_rows: int, options: Mapping[str, Any]) -> int:
    """See, without starting it, that vLLM takes a team with these options; returns the tokens that a chat may have.

    Raises:
        EngineError: it does not.
    """
    with _failing("would not start"), _one_device(policy.device):
        return _arguments(policy, max_rows, options).create_engine_config().model_config.max_model_len


def _arguments(policy: TeamPolicy, max_rows: int, options: Mapping[str, Any]) -> Any:
    # the base is one, and the copies that a reference or a replay wants are made later
    adapters = {BASE, *policy.all_adapters, *map(reference_name, policy.adapters)}
    ours = {
        "model": policy.base.name_or_path,
        "dtype": str(policy.dtype).removeprefix("torch."),
        "skip_tokenizer_init": True,
        "generation_config": "vllm",  # and not the model's, which may cut off
        "logprobs_mode": "processed_logprobs",
        "max_num_seqs": max_rows,
        "enable_sleep_mode": _can_sleep(),
        "enable_lora": True,
        "max_loras": len(adapters),
        "max_cpu_loras": 3 * len(adapters),  # new ones are read before old ones go
        "max_lora_rank": _rank_for(policy),
    }
    return _vllm().EngineArgs(**DEFAULTS | dict(options) | ours)


def _can_sleep() -> bool:
    return _vllm("platforms").current_platform.is_sleep_mode_available()


@contextmanager
def _failing(how: str) -> Iterator[None]:
    """Makes an EngineError of whatever vLLM raises, of any kind: its process may be gone. It has said more before."""
    try:
        yield
    except EngineError:
        raise
    except Exception as error:
        raise EngineError(f"vLLM {how}: {one_line(error) or type(error).__name__}") from error


def _vllm(module: str = "") -> Any:
    """The library, or a module of it; it is read only now, and told to be quiet and to start its process afresh (this
    one has threads and may have used CUDA)."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    return import_module(f"vllm.{module}".removesuffix("."))


def _tell_of_death(processes: list[psutil.Process], ended: threading.Event, outputs: queue.Queue) -> None:
    """Put an error where vLLM waits for what its process has sampled: 0.32 waits for ever if that was killed."""

    def tell(_: psutil.Process) -> None:
        ended.set()
        outputs.put(RuntimeError(ENDED))

    psutil.wait_procs(processes, callback=tell)


def _rank_for(policy: TeamPolicy) -> int:
    most = max(map(policy.rank, policy.all_adapters))
    if most > RANKS[-1]:
        raise EngineError(f"vLLM has adapters up to rank {RANKS[-1]}, and here is one of rank {most}")
    return next(rank for rank in RANKS if rank >= most)


@contextmanager
def _one_device(device: torch.device) -> Iterator[None]:
    """Show the process that vLLM starts this process's GPU alone: with several processes each has its own."""
    if device.type != "cuda":
        yield
        return
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    visible = before.split(",") if before else [str(i) for i in range(torch.cuda.device_count())]
    os.environ["CUDA_VISIBLE_DEVICES"] = visible[device.index or 0]
    try:
        yield
    finally:
        if before is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = before
