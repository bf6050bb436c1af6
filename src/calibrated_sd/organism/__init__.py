"""The CPU model organism: a tiny Qwen3-shaped model that searches aloud and doubts, and its puzzles.

It is a *model organism*: small enough to train in minutes, shaped on purpose so that context makes it confident. It
argues mechanism, not scale, and no figure made with it says anything about the size of an effect elsewhere.

=============  ========================================================================
``puzzles``    three families, in-domain and held-out parameters
``grammar``    how it thinks aloud, and how context changes that
``tokenizer``  word-level tokenizer with a chat template and `<think>` tags
``corpus``     pretraining batches, a function of (seed, index)
``pretrain``   `csd organism pretrain`
``suites``     evaluation suites and the reward
``checkpoint`` loads the shipped weights (``weights/``, with the ladder measured on them)
``ladder``     `csd organism ladder`
=============  ========================================================================
"""
