"""A small folder as Hugging Face's and sentence-transformers' are, with random weights."""

import json

import numpy as np

from support.safetensors import message

CONFIG = {
    "model_type": "bert",
    "vocab_size": 20,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 12,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "sat", "on", "a", "mat", "."]


def shapes(prefix="", config=CONFIG):
    width, inner = config["hidden_size"], config["intermediate_size"]
    yield f"{prefix}embeddings.word_embeddings.weight", (config["vocab_size"], width)
    yield f"{prefix}embeddings.position_embeddings.weight", (config["max_position_embeddings"], width)
    yield f"{prefix}embeddings.token_type_embeddings.weight", (config["type_vocab_size"], width)
    linear = {
        "attention.self.query": (width, width),
        "attention.self.key": (width, width),
        "attention.self.value": (width, width),
        "attention.output.dense": (width, width),
        "intermediate.dense": (inner, width),
        "output.dense": (width, inner),
    }
    norms = ["attention.output.LayerNorm", "output.LayerNorm"]
    for layer in range(config["num_hidden_layers"]):
        for name, shape in linear.items():
            yield f"{prefix}encoder.layer.{layer}.{name}.weight", shape
            yield f"{prefix}encoder.layer.{layer}.{name}.bias", shape[:1]
        for name in norms:
            yield f"{prefix}encoder.layer.{layer}.{name}.weight", (width,)
            yield f"{prefix}encoder.layer.{layer}.{name}.bias", (width,)
    yield f"{prefix}embeddings.LayerNorm.weight", (width,)
    yield f"{prefix}embeddings.LayerNorm.bias", (width,)


def weights(prefix="", dtype=np.float32, config=CONFIG):
    generator = np.random.default_rng(0)
    return {name: generator.standard_normal(shape).astype(dtype) for name, shape in shapes(prefix, config)}


def write(path, tensors, dtypes=None, pad=0):
    header, data = {"__metadata__": {"format": "pt"}}, b""
    names = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64", "int64": "I64"}
    for name, array in tensors.items():
        dtype = (dtypes or {}).get(name, names[array.dtype.name])
        header[name] = {
            "dtype": dtype,
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + array.nbytes],
        }
        data += array.tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8 + pad)
    path.write_bytes(message(text, data))


def make_folder(tmp_path, **changes):
    """Writes the folder; its tokenizer truncates and pads, as a published file may, and the service must not."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing

    write(tmp_path / "model.safetensors", weights(config={**CONFIG, **changes}))
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, **changes}))
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.add_special_tokens(WORDS[:4])
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path
