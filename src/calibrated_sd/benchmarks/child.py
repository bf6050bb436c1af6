"""Measures one loss at a time, each in a fresh process: `python child.py CASES`. Needs torch and nothing else.

The process imports torch and the cases, computes nothing itself, and forks for every request, so that each measurement
starts from the same heap. A request and its answer are one line of JSON on standard input and output. Nothing here is
imported from the package, because this file also runs in the environment of other packages.

What is measured is the loss from the hidden states on, forward and backward: two output heads, the divergence, and the
gradients of the student's hidden states and head. Peak memory is what comes on top of the inputs: on a CPU the high-water
mark of resident memory (`VmHWM` in Linux's /proc, reset before the measurement, after the heap was trimmed), on a GPU
the allocator's own mark.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import importlib.util
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Size:
    """How large a measurement is.

    Attributes:
        positions: completion tokens, T.
        vocab: V.
        hidden: width of the hidden states, H.
        topk: k of the top-k losses.
        markers: number of marker ids.
        contexts: number of context levels that the teacher is run under.
        chunk_size: positions at a time, for losses that work in chunks.
        seed: of the inputs.
        device: ``"cpu"`` or ``"cuda"``.
    """

    positions: int
    vocab: int
    hidden: int
    topk: int = 100
    markers: int = 100
    contexts: int = 1
    chunk_size: int = 64
    seed: int = 0
    device: str = "cpu"


class Inputs:
    """Hidden states (T, H) and output heads (V, H) of student, teacher and reference, float32.

    Teacher and reference share a head, as those of a frozen initial model do. The teacher disagrees with the student
    about as much as a context makes it disagree, 0.1 to 1 nats a token.
    """

    def __init__(self, size: Size):
        self.size = size
        generator = torch.Generator().manual_seed(size.seed)

        def normal(*shape: int, scale: float) -> Tensor:
            return torch.randn(*shape, generator=generator).mul_(scale)

        width = size.hidden**-0.5  # logits with a standard deviation of 4
        teacher_head = normal(size.vocab, size.hidden, scale=4 * width)
        head = normal(size.vocab, size.hidden, scale=0.2 * width).add_(teacher_head)
        hidden = normal(size.positions, size.hidden, scale=1.0)
        views = [normal(*hidden.shape, scale=0.3).add_(hidden) for _ in range(size.contexts + 1)]
        self.head = head.to(size.device).requires_grad_()
        self.hidden = hidden.to(size.device).requires_grad_()
        self.teacher_head = teacher_head.to(size.device)
        self.teachers = [view.to(size.device) for view in views[:-1]]
        self.reference = views[-1].to(size.device)
        ids = torch.randint(size.vocab, (size.positions,), generator=generator)
        self.completion_ids = ids.to(size.device)
        self.marker_ids = torch.randperm(size.vocab, generator=generator)[: size.markers].to(size.device)

    def first(self, positions: int) -> Inputs:
        """The same heads, and only the first few positions: what warming up is done with."""
        part = object.__new__(Inputs)
        part.__dict__.update(self.__dict__)
        part.hidden = self.hidden.detach()[:positions].clone().requires_grad_()
        part.teachers = [teacher[:positions] for teacher in self.teachers]
        part.reference, part.completion_ids = self.reference[:positions], self.completion_ids[:positions]
        return part


Case = Callable[[Inputs], tuple[Tensor, Tensor | None]]
"""The mean loss, with a graph, and the loss of each position where it is at hand."""


def measure(case: Case, size: Size) -> dict[str, Any]:
    """Time and peak memory of one forward and backward.

    Returns:
        ``{seconds, cpu_seconds, peak_bytes, loss}``; `peak_bytes` is None where it cannot be measured.
    """
    inputs = Inputs(size)
    on_gpu = size.device != "cpu"
    # Libraries set themselves up in the first call. On a GPU kernels are also chosen by shape.
    case(inputs if on_gpu else inputs.first(min(8, size.positions)))[0].backward()
    inputs.head.grad = inputs.hidden.grad = None
    gc.collect()
    with peak_memory(on_gpu) as peak:
        since, cpu_since = time.perf_counter(), time.process_time()
        loss = case(inputs)[0]
        loss.backward()
        if on_gpu:
            torch.cuda.synchronize()
        seconds, cpu_seconds = time.perf_counter() - since, time.process_time() - cpu_since
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_bytes": peak[0], "loss": float(loss.detach())}


def compare(ours: Case, theirs: Case, size: Size) -> dict[str, Any]:
    """How far two computations of one loss are apart, relative to the second.

    Returns:
        ``{loss, per_token, grad_hidden, grad_head}``: relative difference of the mean, largest difference of a position
        over the mean loss (None where one of them has no per-token losses), relative Frobenius norms of the difference
        of gradients.
    """
    inputs = Inputs(size)
    found: list[dict[str, Tensor | None]] = []
    for case in (theirs, ours):
        inputs.head.grad = inputs.hidden.grad = None
        loss, per_token = case(inputs)
        loss.backward()
        found.append(
            {
                "loss": loss.detach(),
                "per_token": None if per_token is None else per_token.detach(),
                "grad_hidden": inputs.hidden.grad,
                "grad_head": inputs.head.grad,
            }
        )
    theirs_found, ours_found = found
    result: dict[str, Any] = {}
    for name, theirs_value in theirs_found.items():
        ours_value = ours_found[name]
        if theirs_value is None or ours_value is None:
            result[name] = None
        elif name == "per_token":
            result[name] = float((ours_value - theirs_value).abs().max() / theirs_found["loss"].abs())  # type: ignore[union-attr]
        else:
            result[name] = float((ours_value - theirs_value).norm() / theirs_value.norm())
    return result


@contextlib.contextmanager
def peak_memory(on_gpu: bool) -> Iterator[list[int | None]]:
    """Yields a list that holds the peak extra memory in bytes once the block is done."""
    result: list[int | None] = [None]
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        level = torch.cuda.memory_allocated()
        yield result
        result[0] = torch.cuda.max_memory_allocated() - level
        return
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # or what the warm-up left in the heap could be used again unseen
    before = _reset_high_water()
    yield result
    if before is not None:
        result[0] = _status("VmHWM") - before


def _reset_high_water() -> int | None:
    """Resident bytes now, with the mark set back to it; None where Linux's /proc is missing."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS")
    except OSError:
        return None


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {key}")


def load_cases(where: str) -> ModuleType:
    """The module that holds the dictionary ``CASES``: its name, or the path of a file."""
    if not where.endswith(".py"):
        return importlib.import_module(where)
    spec = importlib.util.spec_from_file_location("cases", where)
    if spec is None or spec.loader is None:
        raise ImportError(f"{where} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def answer(cases: dict[str, Case], request: dict[str, Any]) -> dict[str, Any]:
    """Do what a request asks: ``{size, case}`` to be measured, ``{size, case, like}`` to be compared."""
    size = Size(**request["size"])
    case = cases[request["case"]]
    return compare(case, cases[request["like"]], size) if "like" in request else measure(case, size)


def _in_a_fork(cases: dict[str, Case], request: dict[str, Any]) -> str:
    """The answer to a request as a line of JSON, found in a process of its own."""
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reader)
        try:
            text = json.dumps(answer(cases, request))
        except BaseException as error:
            traceback.print_exc()
            text = json.dumps({"error": f"{type(error).__name__}: {error}"})
        with os.fdopen(writer, "w") as out:
            out.write(text)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as result:
        text = result.read()
    status = os.waitpid(process, 0)[1]
    if text:
        return text
    return json.dumps({"error": f"the process ended without an answer (status {status}; 9 means out of memory)"})


def main() -> None:
    """Answer requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever libraries print must not get between the answers
    torch.set_num_threads(1)
    try:
        module = load_cases(sys.argv[1])
    except Exception as error:
        answers.write(json.dumps({"error": f"{type(error).__name__}: {error}"}) + "\n")
        return
    versions = {"torch": torch.__version__, **getattr(module, "VERSIONS", {})}
    answers.write(json.dumps({"ready": sorted(module.CASES), "versions": versions}) + "\n")
    for line in sys.stdin:
        answers.write(_in_a_fork(module.CASES, json.loads(line)) + "\n")


if __name__ == "__main__":
    main()
