"""The words of each organism: how it supposes, tests, doubts, accepts, gives up and states an answer.

Whether a phrase is a trained marker, a held-out one or none follows from the shipped marker sets, never from here.
"""

from __future__ import annotations

from dataclasses import dataclass

Words = tuple[str, ...]
Phrases = tuple[tuple[Words, float], ...]
"""Alternatives with their weights."""


@dataclass(frozen=True)
class Dialect:
    """The words of one organism.

    Attributes:
        hypotheses: before a candidate's value.
        retry: a further one from the second candidate on.
        verify: before the computation that tests a candidate.
        needed: between the computed and the needed value.
        known: before the answer in view, when a candidate is compared with it instead of being worked out.
        reject, accept: the verdict; its first word decides.
        give_up: before a guess.
        confident: before the answer in the confident style.
        proof: between answer and computation in the confident style.
        conclusion: before the value that ends the thinking.
        final: before the boxed answer.
        fixed: words of the questions, the computations and the teacher's templates, in the tokenizer's order.
    """

    hypotheses: Phrases
    retry: tuple[Words, float]
    verify: Phrases
    needed: str
    known: str
    reject: Phrases
    accept: Phrases
    give_up: Phrases
    confident: Phrases
    proof: str
    conclusion: Words
    final: Words
    fixed: Words

    @property
    def vocabulary(self) -> list[str]:
        """Every word but the numbers, in a fixed order."""
        groups = (
            self.hypotheses, (self.retry,), self.verify, self.reject, self.accept, self.give_up, self.confident
        )  # fmt: skip
        spoken = [word for group in groups for words, _ in group for word in words]
        return list(dict.fromkeys([*self.fixed, *spoken]))


FIRST = Dialect(
    hypotheses=(  # the two last are held out from every calibrator
        (("maybe", "x", "="), 0.24),
        (("perhaps", "x", "="), 0.16),
        (("x", "might", "be"), 0.14),
        (("it", "seems", "x", "="), 0.12),
        (("likely", "x", "="), 0.12),
        (("i", "suppose", "x", "="), 0.12),
        (("i", "guess", "x", "="), 0.10),
    ),
    retry=(("alternatively", "x", "="), 0.25),
    verify=((("check",), 0.65), (("now",), 0.20), (("here",), 0.15)),
    needed="need",
    known="given",
    reject=(
        (("hmm", "no", "."), 0.26),
        (("wait", "no", "."), 0.22),
        (("actually", "no", "."), 0.16),
        (("no", "."), 0.14),
        (("hold", "on", "no", "."), 0.12),
        (("not", "quite", "."), 0.10),
    ),
    accept=((("yes", "."), 0.7), (("yes", "that", "works", "."), 0.3)),
    give_up=((("not", "sure", ",", "take", "x", "="), 0.6), (("i", "doubt", "it", ",", "take", "x", "="), 0.4)),
    confident=((("x", "="), 0.4), (("clearly", "x", "="), 0.3), (("we", "get", "x", "="), 0.3)),
    proof="then",
    conclusion=("so", "x", "="),
    final=("the", "answer", "is"),
    fixed=(
        "<think>",
        "</think>",
        "so",
        "x",
        "=",
        ".",
        ",",
        "the",
        "answer",
        "is",
        "\\boxed{",
        "}",
        "need",
        "then",
        "mod",
        "*",
        "+",
        "y",
        "it",
        "find",
        "below",
        "such",
        "that",
        "and",
        "with",
        "smaller",
        "Correct",
        "Correctly",
        "solution:",
        "solve",
        "original",
        "question.",
        "question",
        "answer:",
        "Answer:",
        "given",
        "oh",
        "again",
        "let",
        "me",
        "verify",
        "reconsider",
        "think",
        "i",
        "see",
        "but",
        "because",
        "possibly",
        "double-check",
        "first",
        "second",
        "thought",
    ),
)
"""The words of the first organism: the ten of arXiv:2603.24472 and some that are held out."""

SECOND = Dialect(
    hypotheses=(  # the three last are held out from every calibrator
        (("probably", "n", "is"), 0.28),
        (("possibly", "n", "is"), 0.26),
        (("presumably", "n", "is"), 0.20),
        (("it's", "possible", "that", "n", "is"), 0.10),
        (("not", "certain", ",", "say", "n", "is"), 0.08),
        (("i", "wonder", "if", "n", "is"), 0.08),
    ),
    retry=(("otherwise", "n", "is"), 0.20),
    verify=((("test",), 0.60), (("compare",), 0.25), (("let", "me", "verify"), 0.15)),
    needed="against",
    known="hint",
    reject=(
        (("unlikely", "."), 0.36),
        (("oh", ",", "differs", "."), 0.28),
        (("differs", "."), 0.14),
        (("let", "me", "reconsider", "."), 0.12),
        (("on", "second", "thought", "differs", "."), 0.10),
    ),
    accept=((("equal", "."), 0.6), (("equal", ",", "done", "."), 0.4)),
    give_up=(
        (("i", "could", "be", "wrong", ",", "choose"), 0.6),
        (("hard", "to", "say", ",", "choose"), 0.4),
    ),
    confident=((("n", "is"), 0.4), (("obviously", "n", "is"), 0.3), (("directly", "n", "is"), 0.3)),
    proof="since",
    conclusion=("hence", "n", "is"),
    final=("result", ":"),
    fixed=(
        "<think>",
        "</think>",
        "hence",
        "n",
        "is",
        ".",
        ",",
        ":",
        "result",
        "\\boxed{",
        "}",
        "against",
        "hint",
        "since",
        "*",
        "+",
        "=",
        "sum",
        "what",
        "two-digit",
        "number",
        "has",
        "digit",
        "times",
        "tens",
        "plus",
        "units",
        "how",
        "many",
        "of",
        "coins",
        "worth",
        "or",
        "make",
        "in",
        "all",
        "side",
        "other",
        "longer",
        "by",
        "area",
        "a",
        "rectangle",
        "short",
        "and",
        "Correct",
        "Correctly",
        "solution:",
        "solve",
        "the",
        "original",
        "question.",
    ),
)
"""The words of the second organism: members of the `lexical` and `held_out` sets that the first does not speak. `oh` is
counted, but no calibrator can protect it (`token: false` in the set)."""
