"""Problem sets made ready for training and evaluation: cleaned, deduplicated, with a report of what was dropped."""
