"""Runs `csd` as a user does."""

import os
import subprocess
import sys

CSD = [sys.executable, "-m", "calibrated_sd.cli.main"]


def run(*arguments, timeout=900, **options):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
    return subprocess.run(
        [*CSD, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment,
        check=False,
        **options,
    )
