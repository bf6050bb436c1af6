"""`csd --help` answers at once: it loads no library that takes long."""

import os
import resource
import subprocess
import sys

SLOW = ("torch", "transformers", "trl", "datasets", "accelerate", "peft", "scipy", "pandas", "matplotlib", "numpy")


def test_help_takes_less_than_a_second_of_cpu_time():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "calibrated_sd.cli.main", "--help"],
        check=True,
        stdout=subprocess.DEVNULL,
        env=os.environ,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0


def test_help_loads_nothing_that_is_slow():
    code = (
        "import sys\nfrom calibrated_sd.cli.main import main\nsys.argv = ['csd', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print('LOADED', sorted(set({SLOW!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "LOADED []" in done.stdout
