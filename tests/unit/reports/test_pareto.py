"""The sweep's figure, tables and page: fronts by hand, labels apart, nothing hidden."""

import subprocess
import sys
from dataclasses import replace

import pytest
from synthetic_sweep import make_sweep

from calibrated_sd.errors import DataError
from calibrated_sd.records import read_json, write_json
from calibrated_sd.reports.label_placement import overlap, place_labels
from calibrated_sd.reports.pareto import draw_pareto, sweep_looks
from calibrated_sd.reports.sweep_folder import load_sweep_folder, pareto_front
from calibrated_sd.reports.sweep_report import build_sweep_report, sheets, sweep_tables


def test_the_front_holds_what_nothing_beats():
    points = [(12, 0.21), (42, 0.43), (30, 0.30), (55, 0.54), (56, 0.52), (81, 0.78), (85, 0.91), (90, 0.91)]
    # (56, .52) needs more markers than (55, .54) and gets less; (90, .91) gets the same as (85, .91) for more.
    assert pareto_front(points) == [(12, 0.21), (30, 0.30), (42, 0.43), (55, 0.54), (81, 0.78), (85, 0.91)]
    assert pareto_front([(1, 0.5), (1, 0.7)]) == [(1, 0.7)]
    assert pareto_front([(2, 0.5), (1, 0.5)]) == [(1, 0.5)]
    assert pareto_front([]) == []


def test_overlap_is_an_area():
    assert overlap((0, 0, 4, 2), (3, 1, 9, 9)) == 1.0
    assert overlap((0, 0, 1, 1), (1, 0, 2, 1)) == 0.0


def test_labels_of_a_crowd_stay_apart_inside_and_off_the_marks():
    points = [(50.0 + 9 * i, 50.0 + 5 * (i % 2)) for i in range(8)]
    sizes, radii = [(22.0, 10.0)] * 8, [4.0] * 8
    frame = (0.0, 0.0, 170.0, 120.0)
    centres = place_labels(points, sizes, radii, frame)
    boxes = [(x - 11, y - 5, x + 11, y + 5) for x, y in centres]
    for i, a in enumerate(boxes):
        assert all(overlap(a, b) == 0 for b in boxes[i + 1 :])
        assert all(overlap(a, (x - 4, y - 4, x + 4, y + 4)) == 0 for x, y in points)
        assert a[0] >= 0 <= a[1]
        assert a[2] <= 170
        assert a[3] <= 120
    assert centres == place_labels(points, sizes, radii, frame)


def test_a_label_in_a_corner_turns_inwards():
    ((x, y),) = place_labels([(98.0, 98.0)], [(20.0, 10.0)], [4.0], (0.0, 0.0, 100.0, 100.0))
    assert x + 10 <= 100
    assert y + 5 <= 100


@pytest.mark.parametrize("methods", [1, 2, 16])
def test_the_figure_is_drawn_and_told_in_words(tmp_path, methods):
    drawing = draw_pareto(load_sweep_folder(make_sweep(tmp_path, methods)))
    assert drawing.png.startswith(b"\x89PNG")
    assert "plain SDPO: 0.21 at 12" in drawing.alt
    assert "projection at retention 0.8: 0.67" in drawing.alt
    assert "n = 273 questions × 2 samples · 2 training seeds" in drawing.conditions
    assert "95 % bootstrap intervals over questions and 2 seeds" in drawing.conditions
    assert "csd sweep --config sweeps/strength @ 0123456789" in drawing.conditions


def test_every_method_has_a_look_of_its_own(tmp_path):
    """Also in one glance: as many colours as there are calibrators, apart from the landmarks'."""
    looks = sweep_looks(load_sweep_folder(make_sweep(tmp_path, 16)))
    assert len({(look.color, look.shape) for look in looks.values()}) == len(looks) == 16 + 3
    assert len({look.color for look in looks.values()}) == 16 + 3


def test_equal_data_give_equal_bytes(tmp_path):
    make_sweep(tmp_path)
    first = build_sweep_report(tmp_path).read_bytes(), (tmp_path / "pareto.png").read_bytes()
    assert first == (build_sweep_report(tmp_path).read_bytes(), (tmp_path / "pareto.png").read_bytes())


def test_tables_say_where_a_share_is_not_reached(tmp_path):
    matched, differences, points = sheets(load_sweep_folder(make_sweep(tmp_path)))
    rows = dict(matched.rows)
    # 0.35 + 0.4·0.8 = 0.67 for the first method, 0.03 less for the second, which never keeps 0.95.
    assert [cell.value for cell in rows["projection"]] == ["0.55", "0.67", "0.73"]
    assert [cell.value for cell in rows["mixture"]] == ["0.52", "0.64", "not reached"]
    assert rows["mixture"][2].interval == "(0.15–0.60)"
    assert rows["projection"][1].extra == "at strength 0.72"
    assert [cell.value for cell in dict(differences.rows)["mixture"]] == ["−0.03", "−0.03", "–"]
    assert len(points.rows) == 3 + 2 * 5
    assert dict(points.rows)["plain SDPO"][0].interval == "[0.18, 0.23]"  # 0.185 and 0.235, rounded half to even
    assert len(sweep_tables(tmp_path)) == 3


def test_failures_stand_on_the_page_and_on_the_figure(tmp_path):
    folder = load_sweep_folder(make_sweep(tmp_path, failed=True))
    assert folder.gaps == ["mixture_strength=2/seed_0 failed: ConfigError: too strong"]
    page = build_sweep_report(tmp_path).read_text(encoding="utf-8")
    assert "failed/mixture_strength=2/seed_0" in page
    assert "PARTIAL" in page
    assert "<script" not in page


def test_labels_are_escaped(tmp_path):
    make_sweep(tmp_path)
    results = read_json(tmp_path / "results.json")
    results["arms"][3]["label"] = "<b>bold</b> $x$"
    write_json(tmp_path / "results.json", results)
    page = build_sweep_report(tmp_path).read_text(encoding="utf-8")
    assert "<b>bold</b>" not in page
    assert "&lt;b&gt;bold" in page


def test_a_folder_with_nothing_to_match_still_has_a_figure(tmp_path):
    make_sweep(tmp_path)
    results = read_json(tmp_path / "results.json")
    write_json(tmp_path / "results.json", {**results, "matched": [], "differences": [], "arms": results["arms"][:1]})
    assert draw_pareto(load_sweep_folder(tmp_path)).png
    assert build_sweep_report(tmp_path).is_file()


def test_other_folders_are_refused(tmp_path):
    write_json(tmp_path / "manifest.json", {"schema_version": 1, "kind": "reproduce"})
    with pytest.raises(DataError, match="no sweep folder"):
        load_sweep_folder(tmp_path)


def test_no_model_library_is_loaded():
    code = (
        "import sys, calibrated_sd.reports.sweep_report\n"
        "assert not {'torch', 'transformers', 'trl'} & set(sys.modules), sorted({'torch', 'trl'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_missing_seeds_are_said_below_the_figure(tmp_path):
    folder = load_sweep_folder(make_sweep(tmp_path, 1))
    folder.points[-1] = replace(folder.points[-1], n_seeds=1)
    assert "1 of 2 training seeds finished in every arm" in draw_pareto(folder).conditions
