"""The CPU model organisms: a tiny Qwen3-shaped model that searches aloud and doubts, and its puzzles.

It is a *model organism*: small enough to train in minutes, shaped on purpose so that context makes it confident. It
argues mechanism, not scale, and no figure made with it says anything about the size of an effect elsewhere.

Two of them, so that a finding can be tried on other puzzles, other words and another size: see `species`.

==================  ===================================================================
``species``         the organisms by name: families, words, suites, weights
``problem``         what every puzzle is
``puzzles``         the first organism's families, in-domain and held-out parameters
``second_puzzles``  the second one's
``dialect``         their words
``grammar``         how they think aloud, and how context changes that
``tokenizer``       word-level tokenizer with a chat template and `<think>` tags
``corpus``          pretraining batches, a function of (seed, index)
``pretrain``        `csd organism pretrain`
``suites``          evaluation suites and the reward
``checkpoint``      loads the shipped weights (``weights*/``, with the ladder measured on them)
``ladder``          `csd organism ladder`
==================  ===================================================================
"""
