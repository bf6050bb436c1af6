r"""Traces that doubt as much as a problem is hard, to give a pretrained language model the habit by a short SFT.

Without context, and after another problem's solution, a trace tries candidates, verifies each and doubts until one
fits, or gives up; after a solution of its own problem it states the answer. All of that is put in on purpose: it is the
assumption of the study, not a finding. What the model says in the middle of a search once it knows the solution is not
put in. The first rows are exercises in checking and nothing else: a small model does not learn from 600 traces to tell
equal numbers from unequal ones, and doubts without judging.

`python -m calibrated_sd.data.doubtful_traces --output data/doubtful --seed 0` writes ``sft.jsonl`` (rows for
``trainer: sft``), one problem file for each suite, and ``manifest.json`` with SHA-256 of all of them.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from calibrated_sd.contexts.rendering import render_reprompt
from calibrated_sd.data.doubtful_problems import FAMILIES, WordProblem, all_problems
from calibrated_sd.errors import CalibratedSDError, ConfigError
from calibrated_sd.evaluation.problem_files import file_sha256
from calibrated_sd.records import MANIFEST, SCHEMA_VERSION, prepare_output, write_json, write_jsonl

Phrases = tuple[tuple[str, float], ...]

HYPOTHESES: Phrases = (  # (phrase, weight); the two last are held out from every calibrator
    ("Maybe it is {x}.", 0.24),
    ("Perhaps {x}.", 0.18),
    ("It might be {x}.", 0.16),
    ("Probably {x}.", 0.12),
    ("It seems to be {x}.", 0.10),
    ("I guess it is {x}.", 0.10),
    ("I suppose it is {x}.", 0.10),
)
RETRY: Phrases = (("Alternatively, {x}.", 0.25),)
VERIFY: Phrases = (("Check:", 0.5), ("Then", 0.3), ("Now", 0.2))
REJECT: Phrases = (  # the three last are held out
    ("Hmm, no.", 0.26),
    ("Wait, no.", 0.22),
    ("Actually, no.", 0.14),
    ("No.", 0.12),
    ("Hold on, no.", 0.10),
    ("Not quite.", 0.10),
    ("I doubt that works.", 0.06),
)
ACCEPT: Phrases = (("Yes.", 0.7), ("Yes, that works.", 0.3))
GIVE_UP: Phrases = (("I am not sure, so I take {x}.", 0.6), ("I could be wrong, but I take {x}.", 0.4))
CONFIDENT: Phrases = (("It is {x}:", 0.4), ("The number is {x}:", 0.3), ("We get {x}:", 0.3))

EXERCISE = "Check these candidates, one after the other."
CHECKS = 16
"""Candidates in an exercise, half of them right on average."""

CONTEXTS = ("none", "solution", "irrelevant")
"""Without context; after a solution of this problem; after one of another problem."""

SUITES = {
    "train": ("product", "trained", "train"),
    "heldout": ("product", "held_out", "heldout"),
    "far_sum": ("sum", None, "far"),
    "far_shopping": ("shopping", None, "far"),
}
"""Suite → (family, split, role)."""


@dataclass(frozen=True)
class Habits:
    """Probabilities that shape the rows; recorded in ``manifest.json``.

    Attributes:
        exercises: share of the rows that are exercises, which come first; the other shares are of the rest.
        none, solution: shares of rows without context and after the problem's own solution; the rest see another's.
        shares: shares of the families.
        give_up: chance of giving up after each failed try. It leaves room for reinforcement.
        direct: share of searches that are left out: the answer is stated although nothing was seen.
        verbose: share of own solutions after which the model searches all the same.
        confident_demonstration: share of demonstrations that are confident traces instead of searches.
    """

    exercises: float = 1 / 6
    none: float = 0.6
    solution: float = 0.2
    shares: tuple[float, float, float] = (0.4, 0.3, 0.3)
    give_up: float = 0.06
    direct: float = 0.04
    verbose: float = 0.05
    confident_demonstration: float = 0.3


def search(problem: WordProblem, rng: random.Random, give_up: float = 0.0) -> str:
    """A response that tries candidates in random order, verifies and doubts, until one fits or it gives up.

    By how much a candidate is off is said before the verdict, which then only has to look for a 0.
    """
    untried = list(problem.candidates)
    rng.shuffle(untried)
    said: list[str] = []
    while True:
        x = untried.pop()
        said.append(_pick(rng, (*HYPOTHESES, *RETRY) if said else HYPOTHESES).format(x=x))
        said.append(f"{_pick(rng, VERIFY)} {_check(problem, x)}")
        if x == problem.answer:
            return _finish([*said, _pick(rng, ACCEPT)], x)
        said.append(_pick(rng, REJECT))
        if rng.random() < give_up:
            x = rng.choice(untried)
            return _finish([*said, _pick(rng, GIVE_UP).format(x=x)], x)


def exercise(problems: Sequence[WordProblem], rng: random.Random) -> str:
    """A candidate of each problem checked, the right one or another with the same chance; no doubt, no answer."""
    said = []
    for problem in problems:
        wrong = [x for x in problem.candidates if x != problem.answer]
        x = problem.answer if rng.random() < 0.5 else rng.choice(wrong)
        said.append(f"{_check(problem, x)} {'Yes.' if x == problem.answer else 'No.'}")
    return " ".join(said)


def confident(problem: WordProblem, rng: random.Random) -> str:
    """A response that states the answer and shows that it fits, without a word of doubt."""
    x = problem.answer
    return _finish([_pick(rng, CONFIDENT).format(x=x), f"{problem.working(x)}, as needed."], x)


def _check(problem: WordProblem, x: int) -> str:
    return f"{problem.working(x)}, need {problem.need}, off by {problem.off(x)}."


def _pick(rng: random.Random, phrases: Phrases) -> str:
    return rng.choices([phrase for phrase, _ in phrases], [weight for _, weight in phrases])[0]


def _finish(said: Sequence[str], x: int) -> str:
    return f"<think>\n{' '.join(said)}\n</think>\nThe answer is \\boxed{{{x}}}."


def suite_problems(suite: str, n: int, seed: int = 0) -> list[WordProblem]:
    """The first `n` problems of the suite in a seeded order. No SFT row of the same seed and `n` asks one of them."""
    family, split, _ = SUITES[suite]
    problems = list(all_problems(family, split))
    random.Random(f"{suite}-{seed}").shuffle(problems)
    return problems[:n]


def suite_rows(suite: str, n: int, seed: int = 0) -> list[dict[str, Any]]:
    """The suite as a problem file holds it, with a successful search as the worked solution.

    Returns:
        Rows ``{problem_id, prompt, answer, solution, n_candidates}``.
    """
    rng = random.Random(f"{suite}-solutions-{seed}")
    return [
        {
            "problem_id": problem.problem_id,
            "prompt": problem.question,
            "answer": str(problem.answer),
            "solution": search(problem, rng),
            "n_candidates": len(problem.candidates),
        }
        for problem in suite_problems(suite, n, seed)
    ]


def sft_rows(n: int, seed: int = 0, n_suite: int = 64, habits: Habits | None = None) -> Iterator[dict[str, Any]]:
    """Rows for ``trainer: sft``: of all families, but without the questions of the suites.

    Args:
        n: how many rows.
        seed: of all draws.
        n_suite: size of the suites, whose questions are left out.
        habits: the probabilities.

    Yields:
        ``{prompt, completion, context, problem_id}``; the prompt is rendered by the templates of TRL's SDPO. An exercise
        has the context ``"exercise"`` and the id of its first problem.
    """
    habits = habits or Habits()
    reserved = {problem for suite in SUITES for problem in suite_problems(suite, n_suite, seed)}
    pools = {family: [p for p in all_problems(family) if p not in reserved] for family in FAMILIES}
    rng = random.Random(f"sft-{seed}")

    def draw() -> WordProblem:
        return rng.choice(pools[rng.choices(FAMILIES, habits.shares)[0]])

    weights = (habits.none, habits.solution, 1 - habits.none - habits.solution)
    n_exercises = round(n * habits.exercises)
    for _ in range(n_exercises):
        problems = [draw() for _ in range(CHECKS)]
        said = exercise(problems, rng)
        yield {"prompt": EXERCISE, "completion": said, "context": "exercise", "problem_id": problems[0].problem_id}
    for _ in range(n - n_exercises):
        problem = draw()
        context = rng.choices(CONTEXTS, weights)[0]
        prompt = problem.question
        if context != "none":
            shown = problem if context == "solution" else draw()
            while context == "irrelevant" and shown.question == problem.question:
                shown = draw()
            style = confident if rng.random() < habits.confident_demonstration else search
            prompt = render_reprompt(prompt, style(shown, rng))
        brief = rng.random() < ((1 - habits.verbose) if context == "solution" else habits.direct)
        completion = confident(problem, rng) if brief else search(problem, rng, habits.give_up)
        yield {"prompt": prompt, "completion": completion, "context": context, "problem_id": problem.problem_id}


def write_doubtful(
    directory: Path, *, n: int = 600, n_suite: int = 64, seed: int = 0, if_exists: str = "raise"
) -> dict[str, str]:
    """Write ``sft.jsonl``, a problem file for each suite, and ``manifest.json`` last.

    Returns:
        File → SHA-256; the same for the same arguments.

    Raises:
        ConfigError: no rows or no problems, or more problems than half of a family (the other half is for SFT).
        OutputError: as :func:`calibrated_sd.records.prepare_output`.
    """
    room = min(len(all_problems(family, split)) for family, split, _ in SUITES.values()) // 2
    if n < 1 or not 1 <= n_suite <= room:
        raise ConfigError(
            f"There must be at least 1 row and from 1 to {room} problems in a suite, so that as many questions are left "
            f"for SFT; got {n} rows and {n_suite} problems. Give other --rows or --suite-size."
        )
    prepare_output(directory, if_exists, kind="doubtful")
    files = {"sft.jsonl": list(sft_rows(n, seed, n_suite))}
    files |= {f"{suite}.jsonl": suite_rows(suite, n_suite, seed) for suite in SUITES}
    for name, rows in files.items():
        write_jsonl(directory / name, rows)
    digests = {name: file_sha256(directory / name) for name in files}
    settings = {"rows": n, "suite_size": n_suite, "seed": seed, "habits": asdict(Habits())}
    described = {"schema_version": SCHEMA_VERSION, "kind": "doubtful", "settings": settings, "sha256": digests}
    write_json(directory / MANIFEST, described)
    return digests


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m calibrated_sd.data.doubtful_traces", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder for the files")
    parser.add_argument("--rows", type=int, default=600, help="rows for SFT (600)")
    parser.add_argument("--suite-size", type=int, default=64, help="problems in each suite (64)")
    parser.add_argument("--seed", type=int, default=0, help="of every draw (0)")
    parser.add_argument("--if-exists", choices=("raise", "resume", "overwrite"), default="raise")
    given = parser.parse_args(arguments)
    try:
        written = write_doubtful(
            given.output, n=given.rows, n_suite=given.suite_size, seed=given.seed, if_exists=given.if_exists
        )
    except CalibratedSDError as error:
        print(error, file=sys.stderr)
        return 1
    for name, digest in written.items():
        print(f"{given.output / name}  {digest[:12]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
