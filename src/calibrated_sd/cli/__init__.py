"""The command line: `csd` (also installed as `calibrated-sd`). Every command imports what it needs when it runs."""
