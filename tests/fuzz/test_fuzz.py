"""A small part of the fuzzing, in a process of its own: the suite checks annotations of some rooms at run time, users' programs do not."""

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from counted import COUNTED

FOLDER = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.parametrize("file", sorted(FOLDER.glob("fuzz_*.py")), ids=lambda file: file.stem)
def test_a_part_of_the_fuzzing(file, record_property):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-o", "addopts=", "-p", "no:cacheprovider", str(file)],
        cwd=FOLDER.parents[1],
        env={"CSD_FUZZ_EXAMPLES": "15", **os.environ},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    said = re.search(rf"bad input, {file.stem}: ([\d,]+) tried, failures (\d+)", done.stdout)
    tried = int(said[1].replace(",", "")) if said else 0
    record_property(COUNTED, [f"bad input, {file.stem}", tried])
    assert done.returncode == 0, done.stdout[-6000:]
    assert tried >= 15
    assert said[2] == "0"


def test_the_bound_on_memory_is_for_the_campaign_only():
    assert resource.getrlimit(resource.RLIMIT_AS)[0] != 12 * 2**30
