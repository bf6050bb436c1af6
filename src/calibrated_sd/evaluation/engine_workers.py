"""Engines in processes of their own: vLLM always, and any number of copies of a model, one share of problems each.

vLLM's ``LLM`` refuses ``data_parallel_size`` above 1 in one process, so copies are separate processes here, each with
its own GPUs. This process stays the only one that writes records: workers hand completions back one by one, so a run
that is killed continues by sample id, also with another number of workers.

Every worker leads a process group of its own. It ends the whole group when its standard input closes, hence also when
this process is killed in a way that runs no code; otherwise :meth:`Workers.close` ends the group.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calibrated_sd import errors
from calibrated_sd.errors import CalibratedSDError, ConfigError
from calibrated_sd.evaluation.generate import render_prompts
from calibrated_sd.evaluation.sampling import Completion, Progress, Prompt

if TYPE_CHECKING:
    from calibrated_sd.evaluation.engines import EngineSettings

WORKER = "calibrated_sd.evaluation.engine_worker"
_GRACE_S = 10.0  # between asking a group to end and killing it


class Workers:
    """Started workers with loaded engines. Their output goes to log files, which are kept if one fails.

    Args:
        settings: of each copy; ``data_parallel`` says how many.

    Raises:
        ConfigError: too few GPUs, or an engine that cannot be loaded.
    """

    def __init__(self, settings: EngineSettings) -> None:
        self.logs = Path(tempfile.mkdtemp(prefix="csd-engines-"))
        self.messages: queue.Queue[tuple[int, dict[str, Any] | None]] = queue.Queue()
        self.processes: list[subprocess.Popen[bytes]] = []
        self.jobs = 0
        try:
            for k, environment in enumerate(worker_environments(settings)):
                self._start(k, environment)
                self._send(k, dataclasses.asdict(dataclasses.replace(settings, data_parallel=1)))
            waiting = set(range(len(self.processes)))
            while waiting:
                k, message = self._receive(waiting)
                if "ready" in message:
                    waiting.discard(k)
        except BaseException:
            self.close(keep_logs=True)
            raise

    def iterate(
        self,
        model: Any,
        tokenizer: Any,
        prompts: Sequence[Prompt],
        *,
        n: int = 1,
        problem_ids: Sequence[str],
        already_done: Collection[tuple[str, int]] = (),
        on_progress: Progress | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        **sampling: Any,
    ) -> Iterator[list[Completion]]:
        """As :func:`~calibrated_sd.evaluation.generate.iter_completions`; ``model`` is not used."""
        ids, finished = list(problem_ids), set(already_done)
        texts, token_ids = render_prompts(tokenizer, prompts, ids, chat_template_kwargs)
        done, total = len(finished & {(pid, s) for pid in ids for s in range(n)}), n * len(ids)
        report = on_progress or (lambda done, total: None)
        report(done, total)
        self.jobs += 1  # what a job that was given up still sends is known by its number
        current = self.jobs
        by_length = sorted(range(len(ids)), key=lambda i: len(token_ids[i]))
        for k in range(len(self.processes)):
            share = by_length[k :: len(self.processes)]
            mine = {ids[i] for i in share}
            job = {
                "job": current,
                "prompts": [prompts[i] for i in share],
                "problem_ids": [ids[i] for i in share],
                "already_done": [pair for pair in finished if pair[0] in mine],
                "chat_template_kwargs": None if chat_template_kwargs is None else dict(chat_template_kwargs),
                "n": n,
                **sampling,
            }
            self._send(k, job)
        text_of, working = dict(zip(ids, texts, strict=True)), set(range(len(self.processes)))
        try:
            while working:
                received = [self._receive(working)]
                with contextlib.suppress(queue.Empty):  # all that is there by now becomes one batch
                    while True:
                        received.append(self._checked(*self.messages.get_nowait()))
                made = []
                for k, message in received:
                    if message.get("job") != current:
                        continue
                    if "finished" in message:
                        working.discard(k)
                    for pid, sample, token_ids_, text, reason in message.get("completions", ()):
                        made.append(Completion(pid, sample, text_of[pid], tuple(token_ids_), text, reason))
                if made:
                    yield made
                    done += len(made)
                    report(done, total)
        except CalibratedSDError:
            self.close(keep_logs=True)
            raise

    def close(self, keep_logs: bool = False) -> None:
        """End every worker with all it started."""
        alive = [process for process in self.processes if _signal_group(process, signal.SIGTERM)]
        deadline = time.monotonic() + _GRACE_S
        while alive and time.monotonic() < deadline:
            time.sleep(0.02)
            alive = [process for process in alive if process.poll() is None]
        for process in self.processes:
            _signal_group(process, signal.SIGKILL)  # also what outlived its leader
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    if pipe is not None:
                        pipe.close()
        self.processes = []
        if not keep_logs:
            shutil.rmtree(self.logs, ignore_errors=True)

    def _start(self, k: int, environment: Mapping[str, str]) -> None:
        with open(self.logs / f"worker_{k}.log", "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", WORKER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        self.processes.append(process)
        threading.Thread(target=self._listen, args=(k, process), daemon=True).start()

    def _listen(self, k: int, process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(OSError, ValueError):  # the pipe is closed under us at the end
            for line in process.stdout or ():
                self.messages.put((k, json.loads(line)))
        self.messages.put((k, None))

    def _send(self, k: int, message: Mapping[str, Any]) -> None:
        pipe = self.processes[k].stdin
        with contextlib.suppress(BrokenPipeError):  # it died: noticed, with its reason, when receiving
            assert pipe is not None
            pipe.write(json.dumps(message).encode() + b"\n")
            pipe.flush()

    def _receive(self, working: Collection[int]) -> tuple[int, dict[str, Any]]:
        while True:
            with contextlib.suppress(queue.Empty):
                k, message = self.messages.get(timeout=1.0)
                if message is None and k not in working:
                    continue
                return self._checked(k, message)
            for k in working:  # a grandchild can hold the pipe open after its worker died
                if self.processes[k].poll() is not None and self.messages.empty():
                    return self._checked(k, None)

    def _checked(self, k: int, message: dict[str, Any] | None) -> tuple[int, dict[str, Any]]:
        log = self.logs / f"worker_{k}.log"
        if message is None:
            code = None
            with contextlib.suppress(subprocess.TimeoutExpired):  # its output ends a moment before it does
                code = self.processes[k].wait(_GRACE_S)
            lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
            said = next((line for line in reversed(lines) if "Error" in line), lines[-1] if lines else "nothing")
            raise ConfigError(
                f"Worker {k} of the engine ended before its work was done (exit code {code}); its last words: "
                f"{said.strip()[:300]}. What is finished is kept: correct the cause, then add --if-exists resume. Its "
                f"full log is {log}."
            )
        if "error" in message:
            kind = getattr(errors, message["error"], ConfigError)
            raise kind(f"{message['message']} The worker's log is {log}.")
        return k, message


def worker_environments(settings: EngineSettings) -> list[dict[str, str]]:
    """Environment variables of each worker: its GPUs, where there are several workers and GPUs.

    Raises:
        ConfigError: fewer GPUs than ``data_parallel × tensor_parallel``.
    """
    import torch

    copies, each = settings.data_parallel, settings.tensor_parallel
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = [str(i) for i in range(torch.cuda.device_count())]
    if gpus and named:
        gpus = named.split(",")[: len(gpus)]
    if gpus and len(gpus) < copies * each:
        raise ConfigError(
            f"{copies} copies of the model on {each} GPUs each need {copies * each} GPUs, but {len(gpus)} are visible. "
            "Lower --data-parallel or --tensor-parallel."
        )
    if not gpus or copies == 1:
        return [{} for _ in range(copies)]
    return [{"CUDA_VISIBLE_DEVICES": ",".join(gpus[k * each : (k + 1) * each])} for k in range(copies)]


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> bool:
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True
