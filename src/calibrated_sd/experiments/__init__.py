"""Reproduction: the paper's claims as data, arms as recipes, runs as resumable processes, provenance for every number."""
