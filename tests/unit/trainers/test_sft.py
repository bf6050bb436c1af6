"""The pieces of the SFT trainer: token classes, neighbourhoods, the two divergences, settings, figures."""

import dataclasses
import inspect

import pytest
import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer, TrlParser

from calibrated_sd.errors import ConfigError, DataError
from calibrated_sd.markers import MarkerSet
from calibrated_sd.trainers import trl_contract
from calibrated_sd.trainers.lm_head import OutputHead
from calibrated_sd.trainers.sft.metrics import SUMS, figures
from calibrated_sd.trainers.sft.terms import (
    LabelClasses,
    full_kl,
    k3,
    marker_mass_at,
    marker_tokens,
    segments_of,
    widen,
)
from calibrated_sd.trainers.sft.trainer import CalibratedSFTConfig, CalibratedSFTTrainer

PLAIN = {"use_cpu": True, "bf16": False, "report_to": "none"}


def ids_of(tokenizer, *texts):
    rows = [tokenizer(text)["input_ids"] for text in texts]
    width = max(map(len, rows))
    return torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in rows])


def bits(*rows):
    return torch.tensor([[character == "1" for character in row] for row in rows])


# ---- documents and neighbourhoods ---------------------------------------------------------------------------------


def test_padding_is_no_document_and_positions_that_start_again_begin_one():
    ids = torch.zeros(1, 6, dtype=torch.long)
    padded = {"input_ids": ids, "attention_mask": torch.tensor([[1, 1, 1, 1, 0, 0]])}
    assert segments_of(padded).tolist() == [[1, 1, 1, 1, 0, 0]]
    packed = {"input_ids": ids, "position_ids": torch.tensor([[0, 1, 0, 1, 2, 0]])}
    assert segments_of(packed).tolist() == [[1, 1, 2, 2, 2, 3]]


def test_a_neighbourhood_ends_with_its_document():
    hits = bits("0100000", "0000001")
    segments = torch.tensor([[1, 1, 2, 2, 2, 2, 2], [1, 1, 1, 1, 1, 1, 1]])
    assert torch.equal(widen(hits, segments, 0), hits)
    assert torch.equal(widen(hits, segments, 1), bits("1100000", "0000011"))
    assert torch.equal(widen(hits, segments, 50), bits("1100000", "1111111"))


def test_markers_are_found_document_by_document(word_tokenizer):
    """`hold on` is a marker; `hold` at the end of one document and `on` at the start of the next are none."""
    ids = ids_of(word_tokenizer, "hold on . hold on")
    held_out = MarkerSet.load("held_out")
    whole = marker_tokens(word_tokenizer, ids, torch.tensor([[1, 1, 1, 1, 1]]), held_out)
    assert torch.equal(whole, bits("11011"))
    cut = marker_tokens(word_tokenizer, ids, torch.tensor([[1, 2, 2, 2, 3]]), held_out)
    assert torch.equal(cut, bits("00000"))
    padded = marker_tokens(word_tokenizer, ids, torch.tensor([[1, 1, 0, 0, 0]]), held_out)
    assert torch.equal(padded, bits("11000"))


def test_classes_are_those_of_the_label_one_position_later(word_tokenizer):
    ids = ids_of(word_tokenizer, "so maybe . hold on yes", "so wait")
    labels = ids.clone()
    labels[0, 0] = labels[1, 1] = -100
    labels[1, 2:] = -100
    inputs = {"input_ids": ids, "labels": labels, "attention_mask": (ids != word_tokenizer.pad_token_id).long()}
    classes = LabelClasses.of(word_tokenizer, inputs, MarkerSet.load("lexical"), MarkerSet.load("held_out"))
    assert torch.equal(classes.counted, bits("11111", "00000"))
    assert torch.equal(classes.marker, bits("10000", "00000"))
    assert torch.equal(classes.held_out, bits("00110", "00000"))
    weights = classes.weights({"markers": 3.0, "held_out": 2.0, "other": 0.5})
    assert weights.tolist() == [[3.0, 0.5, 2.0, 2.0, 0.5], [0.5] * 5]


# ---- divergences --------------------------------------------------------------------------------------------------


def test_k3_by_hand():
    student = torch.tensor([[0.5, 0.25, 0.1]]).log().requires_grad_()
    reference = torch.tensor([[0.5, 0.5, 0.05]]).log()
    found = k3(student, reference)
    # Ratios 1, 2 and 1/2: r − 1 − ln r.
    assert found.tolist()[0] == pytest.approx([0.0, 1 - 0.6931472, -0.5 + 0.6931472], abs=1e-6)
    found.sum().backward()
    assert student.grad.tolist()[0] == pytest.approx([0.0, -1.0, 0.5])  # 1 − r: up where the student lost it


def test_full_kl_in_chunks_equals_logits_with_scale_and_softcap():
    torch.manual_seed(0)
    hidden, weight, bias = torch.randn(7, 4), torch.randn(11, 4), torch.randn(11)
    student_hidden = torch.randn(7, 4, requires_grad=True)
    student_weight = torch.randn(11, 4, requires_grad=True)
    student = OutputHead(student_weight, bias, scale=0.5, softcap=3.0, temperature=0.7)
    reference = OutputHead(weight, None, scale=2.0)
    ids = torch.tensor([2, 5])

    p = torch.log_softmax(2.0 * hidden @ weight.T, -1)
    raw = 0.5 * (student_hidden @ student_weight.T + bias)
    q = torch.log_softmax(3.0 * torch.tanh(raw / 3.0) / 0.7, -1)
    wanted = (p.exp() * (p - q)).sum()
    wanted_gradients = torch.autograd.grad(wanted, (student_hidden, student_weight))

    found = full_kl(student_hidden, student, hidden, reference, ids, chunk_size=3)
    assert found.total.item() == pytest.approx(wanted.item(), rel=1e-5)
    for gradient, other in zip(
        torch.autograd.grad(found.total, (student_hidden, student_weight)), wanted_gradients, strict=True
    ):
        assert torch.allclose(gradient, other, atol=1e-5)
    assert found.m_student.item() == pytest.approx(q.exp()[:, ids].sum().item(), rel=1e-5)
    assert found.m_reference.item() == pytest.approx(p.exp()[:, ids].sum().item(), rel=1e-5)
    masses = marker_mass_at(hidden, reference, ids, chunk_size=2)
    assert torch.allclose(masses.exp(), p.exp()[:, ids].sum(-1), atol=1e-6)


def test_full_kl_at_no_position_is_zero_with_a_graph():
    hidden = torch.randn(0, 4, requires_grad=True)
    head = OutputHead(torch.randn(5, 4, requires_grad=True))
    found = full_kl(hidden, head, hidden.detach(), head, torch.tensor([1]), chunk_size=4)
    assert found.total.item() == found.m_student.item() == 0
    found.total.backward()


@pytest.mark.parametrize(
    ("fields", "scale"),
    [
        ({}, 1.0),
        ({"logit_scale": 0.0625}, 0.0625),
        ({"logit_scale": None, "lm_head_multiplier": 0.3}, 0.3),
        ({"logits_scaling": 8.0, "model_type": "granite"}, 0.125),
        ({"logits_scaling": 8.0, "model_type": "hyperclovax"}, 8.0),
    ],
)
def test_the_scale_of_an_architecture(fields, scale):
    from types import SimpleNamespace

    from calibrated_sd.trainers.lm_head import logit_scale

    assert logit_scale(SimpleNamespace(**{"model_type": "any", **fields})) == scale


# ---- figures ------------------------------------------------------------------------------------------------------


def test_figures_by_hand():
    sums = dict.fromkeys(SUMS, 0.0) | {
        **{"n_tokens": 100.0, "n_markers": 4.0, "n_held_out": 1.0, "marker_nll": 8.0, "held_out_nll": 3.0},
        **{"other_nll": 95.0, "penalty": 5.0, "n_penalised": 12.0, "strength": 1.0, "n_batches": 2.0},
        **{"m_student": 0.5, "m_reference": 2.0},
    }
    assert figures(sums) == {
        "epistemic/token_share": 0.04,
        "epistemic/held_out_token_share": 0.01,
        "epistemic/marker_nll": 2.0,
        "epistemic/held_out_nll": 3.0,
        "epistemic/other_nll": 1.0,
        "calibration/strength": 0.5,
        "calibration/penalty": 0.05,
        "calibration/penalised_share": 0.12,
        "calibration/retention": 0.25,
    }


def test_figures_without_a_denominator_are_left_out():
    assert figures(dict.fromkeys(SUMS, 0.0)) == {}


# ---- settings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"token_weights": {"marker": 2.0}}, "Did you mean 'markers'"),
        ({"token_weights": {"markers": "two"}}, r"token_weights\['markers'\] must be a number, 0 or more, got 'two'"),
        ({"token_weights": {"markers": -1}}, "0 or more, got -1"),
        ({"token_weights": "markers=2"}, "is no JSON object"),
        ({"token_weights": {"markers": 0, "held_out": 0, "other": 0}}, "nothing would be learnt"),
        ({"token_weights": {"markers": 2.0}, "marker_weight": 3.0}, "two different factors"),
        ({"marker_weight": float("nan")}, "marker_weight in CalibratedSFTConfig must be a number"),
        ({"calibration_strength": -0.1}, "calibration_strength must be a number, 0 or more"),
        ({"calibration_kl": "k2"}, "Unknown calibration_kl 'k2'"),
        ({"calibration_metrics": "full"}, "Unknown calibration_metrics"),
        ({"calibration_dilation": 1.5}, "calibration_dilation in CalibratedSFTConfig must be a whole number"),
        ({"calibration_dilation": -1}, "calibration_dilation must be a whole number, 0 or more"),
        ({"chunk_size": 0}, "chunk_size must be a whole number, 1 or more"),
        ({"calibration_schedule": "up"}, "calibration_schedule"),
    ],
)
def test_mistakes_are_one_paragraph(settings, message):
    with pytest.raises(ConfigError, match=message) as error:
        CalibratedSFTConfig("out", **PLAIN, **settings)
    assert "\n" not in str(error.value)


def test_weights_from_either_field():
    assert CalibratedSFTConfig("out", **PLAIN).class_weights() == {"markers": 1.0, "held_out": 1.0, "other": 1.0}
    assert CalibratedSFTConfig("out", **PLAIN, marker_weight=2).class_weights()["markers"] == 2.0
    args = CalibratedSFTConfig("out", **PLAIN, token_weights={"markers": 2, "other": 0.5}, marker_weight=2)
    assert args.class_weights() == {"markers": 2.0, "held_out": 1.0, "other": 0.5}


def test_settings_from_yaml_and_command_line(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("output_dir: out\nuse_cpu: true\nbf16: false\ncalibration_strength: 0.5\ncalibration_kl: full\n")
    command = ["--config", str(path), "--token_weights", '{"markers": 2.0}', "--calibration_strength", "0.25"]
    (args,) = TrlParser(CalibratedSFTConfig).parse_args_and_config(command)
    assert (args.calibration_strength, args.calibration_kl) == (0.25, "full")
    assert args.class_weights()["markers"] == 2.0


def test_config_keeps_trls_fields_and_adds_ours_with_help():
    theirs = {field.name: field.default for field in dataclasses.fields(SFTConfig)}
    ours = dataclasses.fields(CalibratedSFTConfig)
    assert [field.name for field in ours][: len(theirs)] == list(theirs)
    assert {field.name: field.default for field in ours if field.name in theirs} == theirs
    for field in ours[len(theirs) :]:
        assert field.metadata["help"]
        assert f"{field.name} (`" in CalibratedSFTConfig.__doc__


# ---- trainer ------------------------------------------------------------------------------------------------------


def test_same_constructor_order_and_defaults():
    def shape(cls):
        return [(p.name, p.default) for p in list(inspect.signature(cls.__init__).parameters.values())[1:]]

    assert shape(CalibratedSFTTrainer) == shape(SFTTrainer)


def test_every_override_is_guarded():
    overridden = {
        name
        for cls in CalibratedSFTTrainer.__mro__[: CalibratedSFTTrainer.__mro__.index(SFTTrainer)]
        for name, value in vars(cls).items()
        if inspect.isfunction(value) and hasattr(SFTTrainer, name)
    }
    assert {"compute_loss", "log"} <= overridden <= set(trl_contract.SFT_METHODS)
    for name in overridden:
        ours = tuple(inspect.signature(getattr(CalibratedSFTTrainer, name)).parameters)[1:]
        assert ours == trl_contract.SFT_METHODS[name], name


def test_default_arguments(model_path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    rows = Dataset.from_list([{"text": "maybe yes"}])
    trainer = CalibratedSFTTrainer(model_path, train_dataset=rows)
    assert type(trainer.args) is CalibratedSFTConfig
    assert trainer.args.output_dir.endswith("-SFT")
    assert trainer.reference is None


def test_an_empty_data_set_is_refused(model_path):
    empty = Dataset.from_list([{"text": "maybe"}]).select([])
    with pytest.raises(DataError, match="train_dataset is empty"):
        CalibratedSFTTrainer(model_path, CalibratedSFTConfig("out", **PLAIN), train_dataset=empty)


def test_full_needs_markers_with_a_token_of_their_own(model_path, tmp_path):
    path = tmp_path / "marks.yaml"
    path.write_text("name: marks\nversion: 1\nmode: word\nphrases: [i reckon]\n")
    args = CalibratedSFTConfig(
        str(tmp_path), **PLAIN, calibration_strength=1.0, calibration_kl="full", calibration_markers=str(path)
    )
    with pytest.raises(ConfigError, match="begins with a token of its own"):
        CalibratedSFTTrainer(model_path, args, train_dataset=Dataset.from_list([{"text": "maybe"}]))
