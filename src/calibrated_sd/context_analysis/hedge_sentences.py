"""Words for probes: sentences that express doubt, and neutral words that could stand where a marker stands."""

from __future__ import annotations

HEDGES = (
    "Wait, let me look at that line again.",
    "Wait, did I use every number?",
    "Wait, the units have to match here.",
    "Hmm, I am going too fast.",
    "Hmm, this step looks strange.",
    "Hmm, that number is larger than I expected.",
    "Oh, I almost left something out.",
    "Perhaps I should go slower here.",
    "Perhaps there is another way to read the question.",
    "Maybe I misread the question.",
    "Maybe the order of the steps matters.",
    "Maybe that was too quick.",
    "This might be off by one.",
    "I might have skipped a case.",
    "The next step might change the result.",
    "It seems right so far.",
    "That seems too small.",
    "This is likely what the question asks for.",
    "A slip is likely at this point.",
    "That is possibly not what was meant.",
    "This is probably the part where mistakes happen.",
    "I think the last line holds.",
    "Alternatively, I could work backwards.",
    "Alternatively, I could add the parts first.",
    "Actually, let me read the question once more.",
    "Actually, that step needs another look.",
    "Check whether the total makes sense.",
    "Let me check this step.",
    "I should check the last number.",
)
"""English sentences, each with one marker of the set ``lexical`` and none of ``held_out``."""

HELD_OUT_HEDGES = (
    "Hold on, is that what they want?",
    "Hold on, one number is missing.",
    "I am not sure about this step.",
    "I am not certain that this is complete.",
    "I suppose this is the right reading.",
    "I wonder whether this is too simple.",
)
"""Sentences that each doubt in words of the set ``held_out`` and of no other."""

OPENERS = ("so", "then", "next", "now", "first", "here", "thus")
"""Neutral words that can open a clause, where "wait", "maybe" or "alternatively" could."""
VERBS = ("is", "was", "will", "can", "has")
"""Neutral words that can follow a subject, where "might" or "seems" could."""
ADVERBS = ("now", "then", "here", "just", "also")
"""Neutral words that can follow a verb, where "likely" or "probably" could."""
COMMANDS = ("write", "add", "take", "use", "find")
"""Neutral words that can give an order, where "check" could."""

CONNECTIVES = tuple(dict.fromkeys((*OPENERS, "write", "add")))
"""Neutral words whose mass is measured at every position, beside that of the markers."""

_FITTED = {
    **dict.fromkeys(("might", "seems", "seem", "seemed", "i doubt", "i suppose", "i wonder"), VERBS),
    **dict.fromkeys(("likely", "unlikely", "possibly", "probably", "presumably"), ADVERBS),
    "check": COMMANDS,
}


def neutral_words(phrase: str, opens_clause: bool) -> tuple[str, ...]:
    """Neutral words that fit where a marker stands.

    Args:
        phrase: the marker.
        opens_clause: whether the marker stands at the beginning of the text, a line or a clause.
    """
    fitted = _FITTED.get(phrase)
    if fitted is None or (opens_clause and fitted is not COMMANDS):
        return OPENERS if opens_clause else ADVERBS
    return fitted
