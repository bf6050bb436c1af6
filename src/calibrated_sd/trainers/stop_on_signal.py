"""A checkpoint when a scheduler sends SIGTERM."""

from __future__ import annotations

import signal
import threading
from types import FrameType

from transformers import TrainerCallback

from calibrated_sd.trainers.processes import any_process


class StopOnSignal(TrainerCallback):
    """On SIGTERM: finish the optimizer step, save a checkpoint, stop training. All processes stop after the same step.

    transformers' own `enable_jit_checkpoint` saves before the optimizer step, too, when the rollouts of the next step
    have been drawn already: a run that goes on from there is not the straight run. This one saves between steps alone.
    A second SIGTERM does what it would have done without this callback.

    Attributes:
        stopped_at: the step after which training stopped; None if it was not stopped.
    """

    def __init__(self) -> None:
        self.stopped_at: int | None = None
        self._asked = False
        self._before: object = None
        self._installed = False

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        """Listen. Signals reach the main thread alone; elsewhere this does nothing."""
        self.stopped_at, self._asked = None, False
        if (
            threading.current_thread() is threading.main_thread() and not self._installed
        ):  # training that raised left it
            self._before = signal.signal(signal.SIGTERM, self._note)
            self._installed = True

    def on_step_end(self, args, state, control, **kwargs) -> None:
        """Ask for a checkpoint and the end, if any process has been told to stop."""
        if any_process(self._asked, args.device) and self.stopped_at is None:
            self.stopped_at = state.global_step
            control.should_save = control.should_training_stop = True

    def on_train_end(self, args, state, control, **kwargs) -> None:
        """Give the signal back."""
        self._give_back()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        self._give_back()

    def _give_back(self) -> None:
        if self._installed:
            signal.signal(signal.SIGTERM, self._before)  # type: ignore[arg-type]
            self._installed = False
