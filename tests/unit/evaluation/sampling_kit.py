"""Prompts of several lengths for the word-level model, and samples of them."""

from calibrated_sd.evaluation.generate import generate_completions

PROMPTS = [
    "question one plus two equals",
    "question three equals",
    "wait",
    "question seven minus two times four plus one equals",
    "maybe perhaps is the answer red",
]


def sample(model, tokenizer, prompts=PROMPTS, **options):
    """Three completions of each prompt, up to 24 tokens."""
    return generate_completions(model, tokenizer, prompts, **{"n": 3, "max_new_tokens": 24, "seed": 5, **options})
