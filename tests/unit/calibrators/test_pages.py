"""The pages of the calibrators: their table is the registry's."""

import re
from pathlib import Path

from calibrated_sd.calibrators import CALIBRATORS

FOLDER = Path(__file__).parents[3] / "docs/reference/calibrators"


def test_the_table_lists_every_method_with_its_kind_range_and_first_value():
    table = {}
    for line in (FOLDER / "index.md").read_text(encoding="utf-8").splitlines():
        if found := re.match(r"\| \[`(\w+)`\]\((\w+)\.md\) \|(.*)\|$", line):
            name, page, cells = found.groups()
            kind, _, _, limits, first = (cell.strip() for cell in cells.split("|"))
            assert page == name
            table[name] = (kind.lower(), limits, float(first.split()[0]))
    expected = {
        name: (cls.kind, "{:g}–{:g}".format(*cls.strength_range).replace("inf", "∞"), cls.suggested)
        for name, cls in CALIBRATORS.items()
    }
    assert table == expected


def test_the_readme_names_every_method_once():
    readme = (FOLDER.parents[2] / "README.md").read_text(encoding="utf-8")
    rows = re.search(r"^\| `calibration_method` .+\n(?:\|.+\n)+", readme, re.MULTILINE)[0].splitlines()[2:]
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert sorted(named) == sorted(CALIBRATORS)
