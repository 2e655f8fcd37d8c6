"""Model folders as they are published: old names, more files than the weights, and errors by name."""

import json
import os

import ml_dtypes
import numpy as np
import pytest

from support.model_folder import CONFIG, weights, write
from zerocost import InvalidModel, SimplifiedModelService, default_registry
from zerocost.models.model import load_model


def service_of(folder):
    return SimplifiedModelService(default_registry(), folder)


def write_json(path, content):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


def test_layer_norms_may_have_their_old_names(folder):
    plain = service_of(folder).forward([2, 4, 3]).pooled
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in weights("bert.").items()
    }
    assert "bert.embeddings.LayerNorm.gamma" in old
    write(folder / "model.safetensors", old)
    np.testing.assert_array_equal(service_of(folder).forward([2, 4, 3]).pooled, plain)


def modules(*kinds):
    return [
        {"idx": i, "name": str(i), "path": "", "type": f"sentence_transformers.models.{k}"} for i, k in enumerate(kinds)
    ]


def test_modules_that_run_here_are_taken(folder):
    write_json(folder / "modules.json", modules("Transformer", "Pooling", "Normalize"))
    assert service_of(folder).embed("the cat").any()
    listed = modules("Transformer", "Pooling")
    listed[1]["path"] = "2_Pooling"
    write_json(folder / "modules.json", listed)
    write_json(folder / "2_Pooling" / "config.json", {"pooling_mode_cls_token": True})
    assert load_model(folder).pooling == "first"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (modules("Transformer", "Pooling", "Dense", "Normalize"), "modules.json: the module .*Dense.* not supported"),
        (modules("CLIPModel"), "CLIPModel"),
        ([{"type": 1}], "modules.json"),
        ({"a": 1}, "modules.json: a JSON array"),
    ],
)
def test_other_modules_are_refused_by_name(folder, content, text):
    write_json(folder / "modules.json", content)
    with pytest.raises(InvalidModel, match=text):
        load_model(folder)


@pytest.mark.parametrize("name", ["sentence_bert_config.json", "sentence_roberta_config.json"])
def test_text_is_lowercased_where_the_folder_says_so(folder, name):
    write_json(folder / "config.json", {**CONFIG, "model_type": name.split("_")[1]})
    plain = load_model(folder)
    assert service_of(folder).tokenizer.encode("The CAT").input_ids == [2, 1, 1, 3]
    write_json(folder / name, {"max_seq_length": 5, "do_lower_case": True})
    lower = service_of(folder)
    assert lower.tokenizer.encode("The CAT").input_ids == [2, 4, 5, 3]
    assert lower.model.max_tokens == 5
    assert lower.model.tokenizer.identity != plain.tokenizer.identity


def test_a_tensor_that_is_missing_is_shown_beside_the_one_that_is_there(folder):
    write(folder / "model.safetensors", weights("electra."))
    with pytest.raises(InvalidModel, match=r"no tensor '.*there is 'electra\.embeddings.word_embeddings\.weight'"):
        load_model(folder)
    write(folder / "model.safetensors", {"something": np.zeros(3, np.float32)})
    with pytest.raises(InvalidModel, match=r"no tensor 'embeddings.*'something'"):
        load_model(folder)
    write(folder / "model.safetensors", {})
    with pytest.raises(InvalidModel, match="no tensor"):
        load_model(folder)


def test_a_checkpoint_in_parts_is_refused_by_name(folder):
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    write_json(folder / "model.safetensors.index.json", {"weight_map": {}})
    with pytest.raises(InvalidModel, match=r"model\.safetensors\.index\.json: .*not supported"):
        load_model(folder)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize(
    "name", ["embeddings.word_embeddings.weight", "encoder.layer.1.output.dense.weight", "embeddings.LayerNorm.bias"]
)
def test_weights_that_are_not_finite_are_refused_by_name(folder, wrong, dtype, name):
    tensors = weights(dtype=dtype)
    tensors[name].reshape(-1)[-1] = wrong
    write(folder / "model.safetensors", tensors)
    with pytest.raises(InvalidModel, match=f"tensor '{name}' has numbers that are not finite"):
        load_model(folder)


def test_large_weights_are_finite(folder):
    write(folder / "model.safetensors", {**weights(), "embeddings.LayerNorm.bias": np.full(8, 3e38, np.float32)})
    load_model(folder)


def test_the_identity_is_not_that_of_a_file_written_over_later(folder):
    file = folder / "model.safetensors"
    early, late, apart = load_model(folder), load_model(folder), load_model(folder)
    identity = early.identity
    changed = weights()
    changed["embeddings.word_embeddings.weight"] += 1
    write(folder / "fresh", changed)
    (folder / "fresh").replace(file)  # another file under the name: the mapped one is unchanged
    assert apart.identity == early.identity == identity
    again, never_asked = load_model(folder), load_model(folder)
    assert again.identity != identity
    with file.open("r+b") as opened:
        opened.seek(-4, os.SEEK_END)
        opened.write(b"\0\0\0\0")
    os.utime(file, ns=(0, 0))
    for model in (again, never_asked):
        with pytest.raises(InvalidModel, match=r"model\.safetensors: was written to or touched after it was loaded"):
            _ = model.identity
    file.unlink()
    assert late.identity == identity


ROBERTA = {**CONFIG, "model_type": "roberta"}


def test_roberta_s_padding_is_1_unless_the_folder_says_otherwise(folder):
    write_json(folder / "config.json", {**ROBERTA, "pad_token_id": 1})
    said = service_of(folder).forward([2, 4, 3]).pooled
    write_json(folder / "config.json", ROBERTA)
    np.testing.assert_array_equal(service_of(folder).forward([2, 4, 3]).pooled, said)


def test_roberta_counts_positions_without_the_padding(folder):
    write_json(folder / "config.json", ROBERTA)
    service = service_of(folder)
    plain = service.forward([2, 4, 3])
    left = service.forward([1, 1, 2, 4, 3], [0, 0, 1, 1, 1])
    np.testing.assert_array_equal(left.pooled, plain.pooled)
    # Twelve rows of positions, two of them for padding only: ten tokens, however much padding comes before.
    padding = [1] * 15
    service.forward([*padding, *[4] * 10], [*[0] * 15, *[1] * 10])
    with pytest.raises(ValueError, match=r"11 tokens.*10 positions"):
        service.forward([*padding, *[4] * 11], [*[0] * 15, *[1] * 11])
    # A token keeps its position under the mask; padding takes the row for padding.
    table = service.model.encoder._positions
    hole = service.forward([2, 4, 5, 3], [1, 0, 1, 1])
    assert not np.allclose(hole.pooled, service.forward([2, 5, 3]).pooled)
    taking_part = service.forward([2, 1, 3])
    assert not np.allclose(taking_part.pooled, hole.pooled)
    assert len(table) == 12


def test_bert_counts_every_position(folder):
    service = service_of(folder)
    left = service.forward([0, 0, 2, 4, 3], [0, 0, 1, 1, 1])
    assert not np.allclose(left.pooled, service.forward([2, 4, 3]).pooled)
