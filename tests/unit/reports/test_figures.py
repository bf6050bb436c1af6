"""Figures: looked at by eye when they are changed; here, what a machine can see."""

import io

import pytest
from matplotlib.image import imread
from matplotlib.lines import Line2D
from synthetic_folder import make_folder

from calibrated_sd.reports.canvas import SHAPES, canvas, interval_in_words, legend_below, looks, seeds_in_words, span
from calibrated_sd.reports.figures import draw_all
from calibrated_sd.reports.folder import Arm, ReproduceFolder, Run
from calibrated_sd.reports.loading import load_folder
from calibrated_sd.reports.scores import Score, Scores


@pytest.fixture(scope="module")
def drawings(complete):
    folder = load_folder(complete)
    return {drawing.name: drawing for drawing in draw_all(folder, Scores(folder))}


def arms(*given):
    return [Arm("base", "base"), *(Arm(name, name, **fields) for name, fields in given)]


def test_the_four_figures_have_the_size_they_state(drawings):
    assert list(drawings) == ["ladder", "trajectory", "ood_vs_markers", "suites"]
    for drawing in drawings.values():
        assert imread(io.BytesIO(drawing.png)).shape[:2] == (drawing.height, drawing.width)
        assert drawing.width >= 1400  # sharp at the width of a page


def test_conditions_say_n_seeds_interval_and_command(drawings):
    for name, drawing in drawings.items():
        assert "questions × 2 samples" in drawing.conditions
        assert "95 % bootstrap intervals over questions" in drawing.conditions
        assert "csd reproduce --output out @ 0123456789" in drawing.conditions
        assert ("2 training seeds" in drawing.conditions) == (name != "ladder")  # nothing is trained there


def test_alt_texts_carry_the_numbers(drawings, complete):
    score = Scores(load_folder(complete)).get("sdpo", "ood", "accuracy")
    assert f"→ {score.value:.2f}" in drawings["trajectory"].alt
    assert f"SDPO, c = s: {score.value:.2f} at" in drawings["ood_vs_markers"].alt


def test_figures_of_an_empty_folder_say_so_instead_of_failing(tmp_path):
    folder = ReproduceFolder(tmp_path, {"kind": "reproduce"})
    assert len(draw_all(folder, Scores(folder))) == 4


def test_a_warning_is_drawn_on_smoke_runs(tmp_path):
    def corner(profile):
        path = make_folder(tmp_path / profile, arms=[], seeds=[0], n=2, samples=1, profile=profile, summary=True)
        folder = load_folder(path)
        image = imread(io.BytesIO(draw_all(folder, Scores(folder))[0].png))[:40, -500:, :3]
        return bool(((image[..., 0] > 0.6) & (image[..., 2] < 0.2)).any())  # the warning's red-brown

    assert corner("quick")
    assert not corner("default")


def test_families_of_arms_get_warm_and_cool_colours():
    folder = ReproduceFolder(
        None, {}, arms=arms(
            ("pg", {"distillation_weight": 0.0}),
            ("plain", {"distillation_weight": 1.0, "calibration_strength": 0.0}),
            ("off", {"calibration_method": "projection", "calibration_strength": 0.0}),
            ("kept", {"calibration_method": "projection", "calibration_strength": 1.0}),
        )
    )  # fmt: skip
    look = looks(folder)
    assert [look[a.name].color for a in folder.arms] == ["#000000", "#0072B2", "#D55E00", "#E69F00", "#009E73"]
    assert [look[a.name].shape for a in folder.arms] == ["*", *SHAPES[:4]]


def test_colour_keys_are_palette_names_hex_or_shared_words():
    folder = ReproduceFolder(
        None, {}, arms=arms(
            ("a", {"color_key": "purple"}), ("b", {"color_key": "#123456"}), ("c", {"color_key": "pair"}), ("d", {"color_key": "pair"}),
        )
    )  # fmt: skip
    look = looks(folder)
    assert look["a"].color == "#CC79A7"
    assert look["b"].color == "#123456"
    assert look["c"].color == look["d"].color
    assert look["c"].shape != look["d"].shape


def test_more_arms_than_colours_still_get_one_each():
    many = [(f"arm{i}", {"distillation_weight": 1.0}) for i in range(60)]
    assert len(looks(ReproduceFolder(None, {}, arms=arms(*many)))) == 61


@pytest.mark.parametrize(("numbers", "text"), [([], "?"), ([96], "96"), ([40, 91], "40–91")])
def test_spans(numbers, text):
    assert span(numbers) == text


def test_seeds_in_words():
    runs = [Run("a", 0, "ok"), Run("a", 1, "ok"), Run("b", 0, "ok"), Run("b", 1, "failed")]
    assert seeds_in_words(ReproduceFolder(None, {}, seeds=[0, 1], runs=runs[:2])) == "2 training seeds"
    assert (
        seeds_in_words(ReproduceFolder(None, {}, seeds=[0, 1], runs=runs))
        == "1 of 2 training seeds finished in every arm"
    )


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        (["95% BCa bootstrap; covers questions only, 1 seed"], "95 % bootstrap intervals over questions"),
        (["x; covers questions and 3 seeds"] * 2, "95 % bootstrap intervals over questions and 3 seeds"),
        (
            ["x; covers questions and 3 seeds", "x; covers questions only, 1 seed"],
            "95 % bootstrap intervals over questions and 3 seeds (base: questions)",
        ),
        ([], "no intervals"),
    ],
)
def test_intervals_in_words(methods, words):
    assert interval_in_words([Score(0.5, 0.4, 0.6, method=method) for method in methods]) == words


def test_long_labels_are_not_cut_at_the_edge():
    figure = canvas(9, 5)
    figure.subplots()
    legend_below(
        figure,
        [Line2D([], [], label=f"0.3 policy gradient + 0.7 (SDPO + mix-to-floor), {i}") for i in range(9)],
        columns=3,
    )
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width
    assert len(figure.legends) == 1


@pytest.mark.parametrize(("entries", "rows"), [(1, 1), (3, 1), (4, 2), (11, 4)])
def test_the_legend_takes_its_room_from_a_taller_figure_and_not_from_the_panels(entries, rows):
    figure = canvas(9, 5)
    axes = figure.subplots()
    figure.draw_without_rendering()
    before = axes.get_window_extent().height
    legend_below(figure, [Line2D([], [], label=f"arm {i}") for i in range(entries)], columns=3)
    figure.draw_without_rendering()
    assert figure.get_size_inches()[1] == pytest.approx(5 + rows * 0.21)  # 0.21 inches a row
    assert axes.get_window_extent().height == pytest.approx(before, rel=0.02)
    assert figure.legends[0].get_window_extent().y1 <= axes.get_tightbbox().y0
