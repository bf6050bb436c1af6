"""What a sweep folder holds, as reports see it: read from ``manifest.json`` and ``results.json`` alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from calibrated_sd.errors import DataError
from calibrated_sd.records import read_object
from calibrated_sd.reports.folder import BASE
from calibrated_sd.reports.scores import Score, finite


@dataclass(frozen=True)
class Point:
    """One arm of a sweep with what was measured: pooled out-of-distribution suites, last step.

    Attributes:
        name, label: of the arm.
        series: the curve it lies on; None for landmarks.
        place: its value of the swept field along the curve.
        mark: the same in a few letters.
        scores: metric → score; ``accuracy, markers_per_1k, length, …`` and ``retention``.
        n_seeds: training seeds behind it.
    """

    name: str
    label: str
    series: str | None
    place: Any
    mark: str
    scores: dict[str, Score]
    n_seeds: int = 1

    def has(self, *metrics: str) -> bool:
        """Whether all these metrics have a value."""
        return all(metric in self.scores and self.scores[metric].value is not None for metric in metrics)


@dataclass(frozen=True)
class MatchedScore:
    """A method's accuracy where it retains a share of the base model's doubt; value None where it is not reached."""

    series: str
    target: float
    reached: bool
    accuracy: Score
    strength: Score
    low: float
    high: float


@dataclass
class SweepFolder:
    """A sweep's results.

    Attributes:
        path: the folder.
        manifest, results: the two files.
        points: base first, then landmarks, then curves in the order of the recipe.
        matched: every series at every target.
        differences: series, against, target and score of each comparison at equal retention.
        gaps: what failed or is unfinished, one sentence each.
        fingerprint: hash of the two files.
    """

    path: Path
    manifest: dict[str, Any]
    results: dict[str, Any]
    points: list[Point] = field(default_factory=list)
    matched: list[MatchedScore] = field(default_factory=list)
    differences: list[tuple[str, str, float, Score]] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    fingerprint: str = ""
    is_smoke: bool = False

    @property
    def title(self) -> str:
        return str(self.manifest.get("title") or "Sweep")

    @property
    def curve(self) -> str:
        """The swept field that orders the points of a curve, without the package's prefix."""
        return str(self.manifest.get("curve") or "").removeprefix("calibration_")

    @property
    def provenance(self) -> dict[str, Any]:
        value = self.results.get("provenance")
        return dict(value) if isinstance(value, Mapping) else {}

    @property
    def command(self) -> str:
        return str(self.provenance.get("command") or "csd sweep")

    @property
    def base(self) -> Point | None:
        return next((point for point in self.points if point.name == BASE), None)

    @property
    def series(self) -> dict[str, list[Point]]:
        """Curve → its points, by place along the curve where the places are numbers."""
        found: dict[str, list[Point]] = {}
        for point in self.points:
            if point.series is not None:
                found.setdefault(point.series, []).append(point)
        for points in found.values():
            if all(isinstance(point.place, (int, float)) for point in points):
                points.sort(key=lambda point: point.place)
        return found

    def start_of(self, series: str) -> Point | None:
        """The landmark that is this curve without its calibrator."""
        name = (self.results.get("starts") or {}).get(series)
        return next((point for point in self.points if name and point.name == name), None)

    @property
    def landmarks(self) -> list[Point]:
        return [point for point in self.points if point.series is None]

    @property
    def targets(self) -> list[float]:
        return sorted({entry.target for entry in self.matched})


def load_sweep_folder(directory: str | Path) -> SweepFolder:
    """Read a folder that `csd sweep` wrote.

    Raises:
        DataError: no sweep folder, or one without results.
    """
    path = Path(directory)
    files = [path / "manifest.json", path / "results.json"]
    manifest = read_object(files[0])
    if manifest.get("kind") != "sweep":
        raise DataError(
            f"{path} is no sweep folder (its manifest says {manifest.get('kind')!r}). Give one of `csd sweep`."
        )
    results = read_object(files[1], "arms", "matched", "differences", "failed", "unfinished", "other_runs")
    folder = SweepFolder(path, manifest, results)
    for arm in results["arms"]:
        scores = {name: score_of(shown) for name, shown in arm["figures"].items()}
        for name, score in scores.items():
            by_seed = {int(seed): values[name] for seed, values in arm["by_seed"].items() if name in values}
            scores[name] = Score(score.value, score.lo, score.hi, score.n, score.unit, score.method, by_seed)
        scores["retention"] = score_of(arm["retention"])
        place = (arm["series"], arm["point"], arm["mark"])
        folder.points.append(Point(arm["name"], arm["label"], *place, scores, arm["n_seeds"]))
    folder.matched = [
        MatchedScore(
            m["series"],
            m["target"],
            m["reached"],
            score_of(m["accuracy"]),
            score_of(m["strength"]),
            *m["retention_range"],
        )
        for m in results["matched"]
    ]
    folder.differences = [
        (d["series"], d["against"], d["target"], score_of(d["accuracy"])) for d in results["differences"]
    ]
    folder.gaps = [f"{f['arm']}/seed_{f['seed']} failed: {f['error']}" for f in results["failed"]]
    folder.gaps += [f"{name} is not finished." for name in results["unfinished"]]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    folder.fingerprint = digest.hexdigest()[:16]
    return folder


def score_of(shown: Mapping[str, Any]) -> Score:
    """A figure ``{value, lo, hi, n, unit, method}`` as a score."""
    value, lo, hi = (finite(shown.get(key)) for key in ("value", "lo", "hi"))
    return Score(value, lo, hi, int(shown.get("n") or 0), str(shown.get("unit") or ""), str(shown.get("method") or ""))


def pareto_front(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other beats: less x and at least as much y, or as little x and more y. By rising x.

    >>> pareto_front([(1, 0.2), (2, 0.5), (3, 0.4), (4, 0.9)])
    [(1, 0.2), (2, 0.5), (4, 0.9)]
    """
    front: list[tuple[float, float]] = []
    for x, y in sorted(set(points), key=lambda p: (p[0], -p[1])):
        if not front or y > front[-1][1]:
            front.append((x, y))
    return front
