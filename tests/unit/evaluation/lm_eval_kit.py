"""Lines as lm-evaluation-harness 0.4.13 writes them with --log_samples (its EvaluationTracker.save_results_samples)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

FILE = "samples_gsm8k_2025-01-31T10-20-30.123456.jsonl"


def line(doc_id: int, text: str, right: float, filter_name: str = "strict-match", **changes: Any) -> dict[str, Any]:
    """A document under one filter, all fields in the harness's order."""
    prompt, target = f"Question: q{doc_id}\nAnswer:", f"work\n#### {doc_id}"
    settings = {"until": ["Question:", "</s>"], "do_sample": False, "temperature": 0.0, "max_gen_toks": 6}
    return {
        "doc_id": doc_id,
        "doc": {"question": f"q{doc_id}", "answer": target},
        "target": target,
        "arguments": {"gen_args_0": {"arg_0": prompt, "arg_1": settings}},
        "resps": [[text]],
        "filtered_resps": [str(doc_id) if right else "[invalid]"],
        "filter": filter_name,
        "metrics": ["exact_match"],
        "doc_hash": "0" * 64,
        "prompt_hash": hashlib.sha256(prompt.encode()).hexdigest(),
        "target_hash": hashlib.sha256(target.encode()).hexdigest(),
        "exact_match": right,
        **changes,
    }


def write(folder: Path, lines: list[dict[str, Any]], name: str = FILE) -> Path:
    """The file in a folder named after the model, as the harness makes it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in lines), encoding="utf-8")
    return folder / name
