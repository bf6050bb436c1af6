"""What users call does not change by accident. After a change on purpose: `python tests/compat/public_api.py`, and a line in CHANGELOG.md."""

from difflib import unified_diff

from public_api import FROZEN, described


def test_public_names_and_signatures_are_frozen():
    frozen, now = FROZEN.read_text(encoding="utf-8"), described()
    changes = list(unified_diff(frozen.splitlines(), now.splitlines(), "public_api.txt", "the code", lineterm="", n=0))
    assert changes == [], "\n".join(changes)


def test_the_file_covers_what_matters():
    frozen = FROZEN.read_text(encoding="utf-8")
    for line in (
        "calibrated_sd.SDPOTrainer(",
        "calibrated_sd.SDPOConfig.calibration_strength = 0.0",
        "calibrated_sd.CollapseMonitor(trainer=None",
        "calibrated_sd.markers.count_markers(",
    ):
        assert line in frozen
    assert ".learning_rate =" not in frozen  # TRL's
