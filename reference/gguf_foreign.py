# /// script
# requires-python = ">=3.10"
# dependencies = ["gguf==0.19.0", "numpy==2.4.6", "safetensors==0.8.0"]
# ///
"""Compares an exported GGUF file with the model folder that it came from, as foreign loaders read both.

    python reference/gguf_foreign.py EXPORTED.gguf MODEL_DIR

The GGUF file is read by the `gguf` package, model.safetensors by `safetensors`. For every tensor the largest
difference is taken after undoing what GGUF changes: the rows of query and key heads of a llama file are undone by
the formula of llama.cpp's converter (reshape to heads x 2 x half, swap, reshape), and the test says how far they
would be off without it. Exits 1 when a tensor is missing, left over or further off than its type allows.
"""

import json
import sys
from pathlib import Path

import numpy as np
from gguf import GGUFReader, TensorNameMap, get_tensor_name_map, MODEL_ARCH
from gguf.quants import dequantize
from safetensors.numpy import load_file

# Relative to the largest value of the tensor: exact; half a unit in the last place; half a step of 1/127, and up to 127
# steps whose width is off by half a unit in the last place of half precision.
ALLOWED = {"F32": 0.0, "F16": 2.0**-11, "Q8_0": (0.5 + 127 * 2.0**-11) / 127}


def permute(weights, heads):
    """The order in which llama.cpp's converter writes the rows of query and key heads."""
    shape = weights.shape
    return weights.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def main(exported, folder):
    config = json.loads((folder / "config.json").read_text())
    theirs = load_file(folder / "model.safetensors")
    reader = GGUFReader(exported)
    arch = reader.get_field("general.architecture").contents()
    layers = reader.get_field(f"{arch}.block_count").contents()
    names: TensorNameMap = get_tensor_name_map(getattr(MODEL_ARCH, arch.upper()), layers)
    heads = reader.get_field(f"{arch}.attention.head_count").contents()
    kv_heads = reader.get_field(f"{arch}.attention.head_count_kv").contents()
    assert (heads, kv_heads) == (config["num_attention_heads"], config["num_key_value_heads"])

    ours = {t.name: t for t in reader.tensors}
    worst, unpermuted, bad = {}, 0.0, []
    for hf, weights in theirs.items():
        name = names.get_name(hf, try_suffixes=(".weight", ".bias"))
        tensor = ours.pop(name, None)
        if tensor is None:
            bad.append(f"{hf}: no tensor {name}")
            continue
        kind = tensor.tensor_type.name
        values = dequantize(tensor.data, tensor.tensor_type).reshape(weights.shape)
        want = weights
        if arch == "llama" and ".attn_q." in name or arch == "llama" and ".attn_k." in name:
            want = permute(weights, heads if ".attn_q." in name else kv_heads)
            unpermuted = max(unpermuted, float(np.abs(values - weights).max() / np.abs(weights).max()))
        off = float(np.abs(values - want).max() / max(np.abs(want).max(), 1e-30))
        worst[kind] = max(worst.get(kind, 0.0), off)
        if off > ALLOWED[kind]:
            bad.append(f"{name} ({kind}): {off:.3e}")
    bad += [f"{name}: not in the folder" for name in ours]
    tokens = reader.get_field("tokenizer.ggml.tokens")
    if tokens is not None:
        vocab = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
        listed = tokens.contents()
        bad += [f"token {i} is {listed[i]!r}, not {t!r}" for t, i in vocab.items() if listed[i] != t]
    counts = {k: sum(t.tensor_type.name == k for t in reader.tensors) for k in worst}
    print(json.dumps({
        "tensors": counts,
        "largest_relative_difference": worst,
        "query_and_key_without_the_permutation": unpermuted,
        "tokens": len(tokens.contents()) if tokens is not None else 0,
        "metadata": len(reader.fields),
        "bad": bad,
    }, indent=1))  # fmt: skip
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
