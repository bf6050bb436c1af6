"""Started processes: how they are left, and how they may be interrupted."""

import os
import signal
import sys


def leave() -> None:
    """End a process of a group when its results are written, without the interpreter's own end.

    Threads of the communication that are still about when the interpreter ends abort the process now and then on a
    busy machine, long after everything that a test looks at.
    """
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def resumes_on_cpus() -> bool:
    """False where transformers loads an optimizer to "cpu:0", which torch cannot: several CPU processes before 5.23."""
    from importlib.metadata import version

    from packaging.version import Version

    return Version(version("transformers")) >= Version("5.23")


def take_interrupts() -> None:
    """As `preexec_fn`: a shell's background job ignores interrupts, and so would everything that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
