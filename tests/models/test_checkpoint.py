"""Checkpoints: weights as views of the file, families of names, errors by name."""

import gc
import json
import re
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from support.model_folder import CONFIG, weights, write
from support.safetensors import message
from zerocost import InvalidModel, default_registry
from zerocost.core.copies import counting_copies
from zerocost.models.architecture import Architecture
from zerocost.models.checkpoint import Checkpoint
from zerocost.models.model import load_model, untrained_model
from zerocost.services.model_service import SimplifiedModelService


def test_tensors_are_views_of_the_file(folder):
    with counting_copies() as copies:
        checkpoint = Checkpoint(folder / "model.safetensors")
        words = checkpoint.tensor("embeddings.word_embeddings.weight", (20, 8))
    assert copies.bytes == 0
    assert not words.flags.writeable
    assert not words.flags.owndata
    np.testing.assert_array_equal(words, weights()["embeddings.word_embeddings.weight"])


@pytest.mark.alone
@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux says what is in memory")
def test_packed_weights_are_not_in_memory_twice(folder):
    file = folder / "model.safetensors"

    def resident():
        maps = Path("/proc/self/smaps").read_text().split(str(file))[1:]
        return [int(re.search(r"^Rss: +(\d+) kB", text, re.MULTILINE)[1]) for text in maps]

    checkpoint = Checkpoint(file)
    words = checkpoint.tensor("embeddings.word_embeddings.weight", (20, 8))
    assert words.sum()
    assert sum(resident()) > 0
    del words, checkpoint
    gc.collect()
    service = SimplifiedModelService(default_registry(), folder)
    assert resident() == [0]
    assert service.embed("the cat").any()
    assert sum(resident()) > 0


def test_every_tensor_is_taken_once(folder, monkeypatch):
    taken, tensor = [], Checkpoint.tensor

    def counting(self, name, *arguments, **options):
        taken.append(name)
        return tensor(self, name, *arguments, **options)

    monkeypatch.setattr(Checkpoint, "tensor", counting)
    load_model(folder)
    assert sorted(taken) == sorted(weights())


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_16_bit_tensors_are_widened(tmp_path, dtype):
    write(tmp_path / "m", weights(dtype=dtype))
    tensor = Checkpoint(tmp_path / "m").tensor("embeddings.word_embeddings.weight", (20, 8))
    assert tensor.dtype == np.float32
    np.testing.assert_array_equal(tensor, weights(dtype=dtype)["embeddings.word_embeddings.weight"].astype(np.float32))


def test_a_file_whose_data_is_not_aligned_can_be_read(tmp_path):
    write(tmp_path / "m", weights(), pad=1)
    tensor = Checkpoint(tmp_path / "m").tensor("embeddings.word_embeddings.weight", (20, 8))
    np.testing.assert_array_equal(tensor, weights()["embeddings.word_embeddings.weight"])


def test_a_folder_runs(folder):
    service = SimplifiedModelService(default_registry(), folder)
    assert service.model.trained
    assert service.model.max_tokens == 12
    encoding = service.tokenizer.encode("the cat sat on a mat . the cat sat on a mat")
    assert (len(encoding.input_ids), encoding.tokens, encoding.truncated) == (12, 15, True)
    assert encoding.input_ids[0] == 2
    assert encoding.input_ids[-1] == 3
    assert service.tokenizer.encode("the cat").input_ids == [2, 4, 5, 3]
    assert service.tokenizer.decode([2, 4, 5, 3]) == "the cat"
    assert service.embed(["the cat", "a mat"]).shape == (2, 8)


@pytest.mark.parametrize("prefix", ["bert.", "roberta."])
def test_names_may_carry_the_family(folder, prefix):
    plain = SimplifiedModelService(default_registry(), folder).forward([2, 4, 3]).pooled
    write(folder / "model.safetensors", weights(prefix))
    np.testing.assert_array_equal(SimplifiedModelService(default_registry(), folder).forward([2, 4, 3]).pooled, plain)


def test_roberta_s_positions_start_after_the_padding_s(folder):
    (folder / "config.json").write_text(json.dumps({**CONFIG, "model_type": "roberta", "pad_token_id": 1}))
    service = SimplifiedModelService(default_registry(), folder)
    assert service.model.encoder.architecture.positions == 10
    tensors = weights()
    table = tensors["embeddings.position_embeddings.weight"]
    tensors["embeddings.position_embeddings.weight"] = np.concatenate([table[2:], table[:2]])
    output = service.forward([2, 4, 3])
    write(folder / "model.safetensors", tensors)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    moved = SimplifiedModelService(default_registry(), folder).forward([2, 4, 3])
    np.testing.assert_array_equal(moved.pooled, output.pooled)


def test_pooling_follows_the_folder(folder):
    plain = SimplifiedModelService(default_registry(), folder).forward([2, 4, 3])
    np.testing.assert_allclose(plain.pooled, plain.last_hidden_state.mean(axis=0), atol=1e-6)
    (folder / "1_Pooling").mkdir()
    file = folder / "1_Pooling" / "config.json"
    file.write_text(json.dumps({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}))
    first = SimplifiedModelService(default_registry(), folder).forward([[2, 4, 3], [2, 3]])
    np.testing.assert_array_equal(first.pooled, [states[0] for states in first.last_hidden_state])
    file.write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(InvalidModel, match="pooling_mode_max_tokens"):
        load_model(folder)


def test_the_identity_changes_with_the_weights(folder):
    one = load_model(folder).identity
    assert one == load_model(folder).identity
    tensors = weights()
    tensors["embeddings.word_embeddings.weight"][0, 0] += 1
    write(folder / "model.safetensors", tensors)
    assert load_model(folder).identity != one
    assert untrained_model(1).identity != untrained_model().identity


def replaced(name, array):
    return {**weights(), name: array}


@pytest.mark.parametrize(
    ("tensors", "dtypes", "text"),
    [
        ({k: v for k, v in weights().items() if "layer.1.output.dense.bias" not in k}, {}, "no tensor.*layer.1.output"),
        (replaced("encoder.layer.0.output.dense.weight", np.zeros((8, 8), np.float32)), {}, "layer.0.*shape"),
        (replaced("embeddings.LayerNorm.bias", np.zeros(8, np.int64)), {}, "LayerNorm.bias.*I64.*F32"),
        (weights(), {"embeddings.LayerNorm.bias": "F64"}, "LayerNorm.bias: data_offsets must .*fit the shape"),
    ],
)
def test_wrong_tensors_are_named(folder, tensors, dtypes, text):
    write(folder / "model.safetensors", tensors, dtypes)
    with pytest.raises(InvalidModel, match=text) as caught:
        load_model(folder)
    assert "model.safetensors" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"model_type": "llama"}, "model_type 'llama' is not supported, only bert"),
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"is_decoder": True}, "is_decoder"),
        ({"hidden_act": "silu"}, "hidden_act 'silu'"),
        ({"num_attention_heads": 3}, "hidden_size 8 is not a multiple of num_attention_heads 3"),
        ({"hidden_size": "8"}, "hidden_size"),
        ({"layer_norm_eps": -1}, "layer_norm_eps"),
        ({"model_type": "roberta", "pad_token_id": None}, "pad_token_id"),
        ({"model_type": "roberta", "pad_token_id": 11}, "max_position_embeddings"),
    ],
)
def test_an_architecture_that_is_not_supported_is_named(folder, change, text):
    (folder / "config.json").write_text(json.dumps({**CONFIG, **change}))
    with pytest.raises(InvalidModel, match=text) as caught:
        Architecture.from_folder(folder)
    assert "config.json" in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_missing_and_damaged_files_are_named(folder, name):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(InvalidModel, match=name):
        load_model(folder)
    (folder / name).unlink()
    with pytest.raises(InvalidModel, match=f"{name}.*cannot be read"):
        load_model(folder)
    with pytest.raises(InvalidModel, match="no such folder"):
        load_model(folder / "nowhere")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "truncated"),
        (b"1234567", "7 bytes"),
        (message(b"", size=1 << 60), "header of"),
        (message([]), "is not a JSON object"),
        (message(b"{]"), "not JSON"),
        (message({"a": None}), "m: a: dtype None"),
    ],
)
def test_a_file_that_is_not_safetensors_is_refused(tmp_path, content, text):
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(InvalidModel, match=text):
        Checkpoint(tmp_path / "m")


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({"dtype": "F32", "shape": [2], "data_offsets": [0, 9]}, r"a: data_offsets .* \[0, 9\] was given, \[0, 8\]"),
        ({"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}, "a: shape and data_offsets must be lists"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [4, 0]}, r"\[4, 0\] was given, \[0, 8\]"),
        ({"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}, "truncated"),
        ({"dtype": "F32", "shape": [1], "data_offsets": [0, 8]}, r"fit the shape: \[0, 8\] was given, \[0, 4\]"),
    ],
)
def test_offsets_outside_of_the_file_are_refused(tmp_path, entry, text):
    (tmp_path / "m").write_bytes(message({"a": entry}, bytes(8)))
    with pytest.raises(InvalidModel, match=text):
        Checkpoint(tmp_path / "m")
