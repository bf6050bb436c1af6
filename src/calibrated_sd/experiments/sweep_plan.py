"""What a sweep consists of, after its recipe has been read: points, landmarks, curves. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from calibrated_sd.experiments.grid import digest

BASE = "base"
STRENGTH, METHOD = "calibration_strength", "calibration_method"
CALIBRATION = (METHOD, STRENGTH, "calibration_schedule", "calibration_kwargs", "calibration_controller")
"""What a run without a calibrator does not need to say."""
RETENTION_TARGETS = (0.5, 0.8, 0.95)
"""Shares of the base model's marker density at which methods are compared, unless told otherwise."""


@dataclass(frozen=True)
class Evaluation:
    """How every run is measured; the fields mean what they mean in a reproduce recipe.

    Attributes:
        eval_steps: steps at which a run is evaluated on the way; the last step always is.
        eval_problems, eval_samples: of each suite, at the end.
        mid_problems, mid_samples: the same on the way.
        max_new_tokens: length limit.
        question_seed: which questions of a suite are asked, where it has more; 0 for those of the reproduce recipe.
        suites: problem files, for models other than the organism: ``{name: {problems: FILE, role: far}}``.
    """

    eval_steps: tuple[int, ...] = ()
    eval_problems: int = 91
    eval_samples: int = 2
    mid_problems: int = 40
    mid_samples: int = 1
    max_new_tokens: int = 224
    question_seed: int = 0
    suites: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class SweepArm:
    """One point of the sweep: one run for each seed.

    Attributes:
        name: folder name; says what was varied.
        label: in words.
        series: the curve it belongs to; None for landmarks.
        point: its place along the curve, a value of the swept field.
        swept: swept field → value.
        trainer: settings of the trainer.
        data: ``n_problems`` and ``subset_seed``.
        steps: optimizer steps.
    """

    name: str
    label: str
    series: str | None
    point: Any
    swept: dict[str, Any]
    trainer: dict[str, Any]
    data: dict[str, Any]
    steps: int

    @property
    def plain_key(self) -> str:
        """Equal for arms that differ in their calibrator alone."""
        rest = {key: value for key, value in self.trainer.items() if key not in CALIBRATION}
        return digest([rest, self.data, self.steps])


@dataclass(frozen=True)
class Sweep:
    """Everything one `csd sweep` does.

    Attributes:
        title: the recipe's first comment line.
        arms: landmarks first, then the points in the order of the file.
        seeds: training seeds.
        evaluation: how runs are measured.
        curve: the swept field that orders the points of a series.
        fields: all swept fields, the columns of ``results.csv``.
        defaults: what a swept field is where a run does not set it; a run without a calibrator has no method.
        shared: model, problems, grader, lora_r.
        targets: retentions at which methods are compared.
        workers: processes at the same time.
        slurm: parameters of the cluster.
        keep_models: whether every run keeps its final weights.
        recipe_hash: of the whole file.
    """

    title: str
    arms: tuple[SweepArm, ...]
    seeds: tuple[int, ...]
    evaluation: Evaluation
    curve: str | None
    fields: tuple[str, ...]
    defaults: dict[str, Any]
    shared: dict[str, Any]
    targets: tuple[float, ...] = RETENTION_TARGETS
    workers: int = 2
    slurm: dict[str, Any] = field(default_factory=dict)
    keep_models: bool = True
    recipe_hash: str = ""

    @property
    def series(self) -> dict[str, list[SweepArm]]:
        """Curve → its arms; by value along the curve where the values are numbers, in the file's order otherwise."""
        found: dict[str, list[SweepArm]] = {}
        for arm in self.arms:
            if arm.series is not None:
                found.setdefault(arm.series, []).append(arm)
        for arms in found.values():
            if all(isinstance(arm.point, (int, float)) for arm in arms):
                arms.sort(key=lambda arm: arm.point)
        return found

    def start_of(self, series: str) -> SweepArm | None:
        """The arm that is this series at strength 0: the same run without the calibrator, if the sweep has it."""
        keys = {arm.plain_key for arm in self.series[series]}
        if self.curve != STRENGTH or len(keys) > 1:
            return None
        off = [arm for arm in self.arms if arm.series is None and not arm.trainer.get(STRENGTH)]
        return next((arm for arm in off if arm.plain_key in keys), None)
