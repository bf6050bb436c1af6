"""Records and problems for tests of the ladder, made by hand."""

from __future__ import annotations


def problem(name, solution=None, prompt=None, answer="4"):
    row = {"suite": "s", "problem_id": name, "answer": answer}
    row["prompt"] = [{"role": "user", "content": prompt or f"question {name}"}]
    return row if solution is None else {**row, "solution": solution}


def record(name, sample, correct=True, n_tokens=10, markers=0, context="none", text=None, finish="stop"):
    return {
        "schema_version": 1,
        "suite": "s",
        "problem_id": name,
        "sample": sample,
        "prompt_sha256": "0" * 64,
        "completion": f"{name} {context} {sample}" if text is None else text,
        "finish_reason": finish,
        "n_tokens": n_tokens,
        "correct": correct,
        "markers": {"legacy": markers, "lexical": markers, "held_out": 0},
        "context": context,
        "arm": "base",
        "seed": 0,
        "step": 0,
    }


def passes(name, n_correct, n=8):
    """``n`` samples, the last ``n_correct`` of them right."""
    return [record(name, i, correct=i >= n - n_correct) for i in range(n)]
