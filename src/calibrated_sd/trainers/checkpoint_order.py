"""Which checkpoint is the oldest, whatever the clock says."""

from __future__ import annotations

import contextlib

from transformers import TrainerCallback

from calibrated_sd.trainers.finished import order_by_step


class CheckpointOrder(TrainerCallback):
    """Before a checkpoint is saved and old ones are deleted: their times of change follow their steps.

    For any trainer of transformers. A clock that is set back during a run makes it delete the newest checkpoint instead
    of the oldest one.
    """

    def on_step_end(self, args, state, control, **kwargs) -> None:
        """Look where a checkpoint may be saved after this step."""
        if args.save_total_limit and state.is_world_process_zero:
            with contextlib.suppress(OSError):  # a file system that keeps no such times is no reason to stop training
                order_by_step(args.output_dir, state.global_step, saved_now=control.should_save)
