# /// script
# requires-python = ">=3.10"
# dependencies = ["adam-mini==1.1.1", "torch==2.15.0", "numpy==2.4.6"]
# ///
"""Reference trajectories of Adam-mini, by the official package on the CPU in float64.

    uv run reference/adam_mini.py                                  # every case of version 1.1.1
    uv run --with adam-mini==1.0.4 reference/adam_mini.py          # every case of the version that is installed
    uv run reference/adam_mini.py CASE...                          # some
    uv run reference/adam_mini.py --v0 Adam_mini.py                # every case of the first published file

The first version never was a package: take Adam_mini.py of the authors' repository at commit 9a86f05. It keeps its
state in float32; here the text is changed to float64 before it runs, and nothing else but an import that newer
PyTorch lacks.

Writes fixtures/adam-mini/<case>.json. Only outputs are stored: inputs come from SplitMix64 streams that both
sides regenerate. `Rng(seed, purpose)` starts at state mix(seed xor FNV1a64(purpose)); with u = uniform in
[0, 1), row-major:
  parameter  stream "p/" + name, 2u - 1
  gradient   of step t = 0, 1, ...: stream "g/" + str(t) + "/" + name, (2u - 1) * (t + 1)

The official head block is dim * dim / n_heads elements, so every case has head_dim * n_heads = dim.
`v` holds the second moments after the last step, one per block, in the order of the layout.
"""

import importlib.metadata
import json
import os
import platform
import sys
from pathlib import Path

# The package asks how many GPUs there are and then wants a process group; parity is a matter of the CPU.
os.environ["CUDA_VISIBLE_DEVICES"] = ""

# This script bears the name of the package it imports.
sys.path.pop(0)

import numpy as np
import torch
from adam_mini import Adam_mini

ROOT = Path(__file__).resolve().parent.parent
SEED = 20261124
STEPS = 20
VERSION = importlib.metadata.version("adam-mini")
MASK = (1 << 64) - 1


def mix(counter):
    z = (counter + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


class Rng:
    def __init__(self, seed, purpose):
        h = 0xCBF29CE484222325
        for b in purpose.encode():
            h = ((h ^ b) * 0x100000001B3) & MASK
        self.state = mix(seed ^ h)

    def uniform(self):
        out = mix(self.state)
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        return (out >> 11) / (1 << 53)


def symmetric(purpose, shape):
    rng = Rng(SEED, purpose)
    n = int(np.prod(shape))
    return torch.tensor([2 * rng.uniform() - 1 for _ in range(n)], dtype=torch.float64).reshape(shape)


def llama(dim, heads, kv_heads, ff, vocab, tied, layers=1):
    hd = dim // heads
    tensors = [("model.embed_tokens.weight", (vocab, dim), {"embed": {}})]
    for i in range(layers):
        layer = f"model.layers.{i}."
        tensors += [
            (layer + "self_attn.q_proj.weight", (dim, dim), {"query": {"head_dim": hd}}),
            (layer + "self_attn.k_proj.weight", (kv_heads * hd, dim), {"key": {"head_dim": hd}}),
            (layer + "self_attn.v_proj.weight", (kv_heads * hd, dim), {"value": {"head_dim": hd}}),
            (layer + "self_attn.q_proj.bias", (dim,), {"bias": {}}),
            (layer + "self_attn.o_proj.weight", (dim, dim), {"attn-out": {}}),
            (layer + "mlp.gate_proj.weight", (ff, dim), {"mlp": {}}),
            (layer + "mlp.up_proj.weight", (ff, dim), {"mlp": {}}),
            (layer + "mlp.down_proj.weight", (dim, ff), {"mlp": {}}),
            (layer + "input_layernorm.weight", (dim,), {"norm": {}}),
            (layer + "post_attention_layernorm.weight", (dim,), {"norm": {}}),
        ]
    tensors.append(("model.norm.weight", (dim,), {"norm": {}}))
    if not tied:
        tensors.append(("lm_head.weight", (vocab, dim), {"head": {}}))
    return tensors


def gpt2(dim, heads, vocab, positions, bias):
    hd = dim // heads
    tensors = [
        ("transformer.wte.weight", (vocab, dim), {"embed": {}}),
        ("transformer.wpe.weight", (positions, dim), {"position": {}}),
        ("transformer.h.0.ln_1.weight", (dim,), {"norm": {}}),
        ("transformer.h.0.ln_1.bias", (dim,), {"bias": {}}),
        ("transformer.h.0.attn.c_attn.weight", (3 * dim, dim), {"qkv": {"head_dim": hd, "heads": heads, "kv_heads": heads}}),
        ("transformer.h.0.attn.proj.weight", (dim, dim), {"attn-out": {}}),
        ("transformer.h.0.mlp.c_fc.weight", (4 * dim, dim), {"mlp": {}}),
    ]
    # Version 1.1.0 fails on it: it looks for the rows of a vector.
    if bias:
        tensors.append(("transformer.h.0.mlp.c_fc.bias", (4 * dim,), {"bias": {}}))
    return tensors


WARM = dict(lr=1e-2, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1)
SLOW = dict(lr=3e-3, beta1=0.8, beta2=0.999, eps=1e-6, weight_decay=0.01)
PLAIN = dict(lr=1e-2, beta1=0.9, beta2=0.99, eps=1e-8, weight_decay=0.0)

def first(dim, heads, kv_heads):
    hd = dim // heads
    fused = {"qkv-grouped": {"head_dim": hd, "groups": kv_heads, "queries": heads // kv_heads}}
    layer = "model.layers.0."
    return [
        ("model.embed_tokens.weight", (7, dim), {"embed": {}}),
        (layer + "self_attn.q_proj.weight", (dim, dim), {"query": {"head_dim": hd}}),
        (layer + "self_attn.k_proj.weight", (kv_heads * hd, dim), {"key": {"head_dim": hd}}),
        (layer + "self_attn.v_proj.weight", (kv_heads * hd, dim), {"value": {"head_dim": hd}}),
        (layer + "attn.qkv.weight", ((heads + 2 * kv_heads) * hd, dim), fused),
        (layer + "mlp.weight", (10, dim), {"mlp": {}}),
        (layer + "mlp.bias", (10,), {"bias": {}}),
        ("model.norm.weight", (dim,), {"norm": {}}),
        ("lm_head.weight", (7, dim), {"head": {}}),
    ]


# name: (version, tensors, dim, heads, kv heads, hyper-parameters)
CASES = {
    "nano-llama-gqa": ("1.1.1", llama(12, 6, 2, 20, 16, False, layers=2), 12, 6, 2, WARM),
    "llama-mqa-tied": ("1.1.1", llama(8, 4, 1, 6, 5, True), 8, 4, 1, SLOW),
    "gpt2": ("1.1.1", gpt2(8, 2, 6, 5, True), 8, 2, 2, PLAIN),
    "nano-llama-gqa-1.1.0": ("1.1.0", llama(12, 6, 2, 10, 7, False), 12, 6, 2, WARM),
    "gpt2-1.1.0": ("1.1.0", gpt2(8, 2, 6, 5, False), 8, 2, 2, SLOW),
    "nano-llama-gqa-1.0.4": ("1.0.4", llama(12, 6, 2, 10, 7, False), 12, 6, 2, WARM),
    "gpt2-1.0.4": ("1.0.4", gpt2(8, 2, 6, 5, True), 8, 2, 2, SLOW),
    "fused-v0": ("v0", first(12, 6, 6), 12, 6, 6, WARM),
    "fused-gqa-v0": ("v0", first(12, 6, 2), 12, 6, 2, WARM),
}


def widened(path):
    """The class of the first published file, with its state in float64."""
    text = Path(path).read_text()
    for old, new in [
        ("from torch.optim.optimizer import _dispatch_sqrt", ""),
        (".to(torch.float32)", ".to(torch.float64)"),
        ("torch.tensor(0.0)", "torch.tensor(0.0, dtype=torch.float64)"),
        ("torch.zeros(state['head'])", "torch.zeros(state['head'], dtype=torch.float64)"),
        ('torch.zeros(group["n_head"], group["q_per_kv"]+2)', 'torch.zeros(group["n_head"], group["q_per_kv"]+2, dtype=torch.float64)'),
    ]:
        if old not in text:
            sys.exit(f"{path} is another version: {old!r} is not in it")
        text = text.replace(old, new)
    module = {}
    exec(compile(text, path, "exec"), module)
    return module["Adam_mini"]


def build(params, dim, heads, kv_heads, h, v0):
    if v0:
        model = type("Model", (), {"named_parameters": lambda self: params})()
        return v0(
            model, lr=h["lr"], beta1=h["beta1"], beta2=h["beta2"], epsilon=h["eps"], weight_decay=h["weight_decay"],
            n_embd=dim, n_head=heads, n_query_groups=kv_heads,
        )
    return Adam_mini(
        params, lr=h["lr"], betas=(h["beta1"], h["beta2"]), eps=h["eps"], weight_decay=h["weight_decay"],
        dim=dim, n_heads=heads, n_kv_heads=kv_heads, verbose=False,
    )


def run(name, v0):
    version, tensors, dim, heads, kv_heads, h = CASES[name]
    installed = "v0" if v0 else VERSION
    if version != installed:
        sys.exit(f"case {name} is one of adam-mini {version}; this is {installed}")
    params = [(n, torch.nn.Parameter(symmetric("p/" + n, shape))) for n, shape, _ in tensors]
    optimizer = build(params, dim, heads, kv_heads, h, v0)
    for t in range(STEPS):
        for n, p in params:
            p.grad = symmetric(f"g/{t}/{n}", p.shape) * (t + 1)
        optimizer.step()
    out = {
        "generator": "reference/adam_mini.py",
        "case": name,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__, "adam-mini": installed},
        "dtype": "float64",
        "tolerance": {"rtol": 1e-10, "atol": 1e-12},
        "seed": SEED,
        "steps": STEPS,
        "optimizer": {"kind": "adam-mini", "preset": version, **h},
        "tensors": [],
    }
    for (n, p), (_, shape, role) in zip(params, tensors):
        state = optimizer.state[p]
        second = state["v"] if "v" in state else state["vmean"]
        role = role if list(role.values())[0] else list(role)[0]
        out["tensors"].append({
            "name": n, "shape": list(shape), "role": role,
            "p": p.detach().flatten().tolist(), "v": second.flatten().tolist(),
        })
    return out


def main():
    folder = ROOT / "fixtures" / "adam-mini"
    folder.mkdir(parents=True, exist_ok=True)
    names = sys.argv[1:]
    v0 = None
    if names[:1] == ["--v0"]:
        v0, names = widened(names[1]), names[2:]
    for name in names or [n for n, case in CASES.items() if case[0] == ("v0" if v0 else VERSION)]:
        lines = json.dumps(run(name, v0), indent=None, separators=(", ", ": "))
        lines = lines.replace('{"name"', '\n{"name"').replace('"tensors"', '\n"tensors"')
        (folder / f"{name}.json").write_text(lines + "\n")


if __name__ == "__main__":
    main()
