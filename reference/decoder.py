# /// script
# requires-python = ">=3.10"
# dependencies = ["torch==2.15.0", "numpy==2.4.6", "gguf==0.19.0"]
# ///
"""Reference values of the decoder models, by plain eager PyTorch and its autograd.

    python reference/decoder.py            # every case; `smollm2-2layer` needs --gguf or $RHUMB_MODELS
    python reference/decoder.py CASE...    # some

Writes fixtures/decoder/<case>.json. Only outputs are stored: inputs come from SplitMix64 streams that both
sides regenerate. `Rng(seed, purpose)` starts at state mix(seed xor FNV1a64(purpose)).

Inputs, with u = uniform in [0, 1), row-major, one stream per tensor named by the Hugging Face tensor name:
  matrices and embeddings   (2u - 1) * 0.08
  norm weights              1 + (2u - 1) * 0.1
  every bias                (2u - 1) * 0.05
  token ids                 stream "tokens", below(vocab), batch x length row-major
  direction of the HVP      stream "v/" + name, 2u - 1
  sampled entries           stream "sample/" + name, 64 draws of below(numel) (16 in the case of long rows), the
                            same places for gradient and HVP; "sample/logits" for the logits
f32 runs round the f64 inputs once. RoPE angles, cosines and sines are computed in f64 and then rounded.

The loss is the mean of -log p(next token) over every position that has a successor in the same document.
`losses_f64` and `losses_f32` are the losses seen before each of ten AdamW steps on that same batch.
Checked by hand against transformers 5.23.0 run in f64: loss and gradients of GPT-2 agree to 1e-15, those of the
others to 6e-7 of the largest entry, since that library computes RMSNorm and RoPE in f32 whatever the model's type.
GPT-2 tensors carry the names of the published checkpoint (`h.0.attn.c_attn.weight`, Conv1D layout [in, out]).
"""

import argparse
import json
import os
import platform
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

ROOT = Path(__file__).resolve().parent.parent
SEED = 20261124
SAMPLES = 64
ADAMW = {"lr": 1e-3, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1, "steps": 10}
TOLERANCE = {
    "tensor_f64": 1e-10,
    "tensor_f32": 1e-4,
    "loss_f64": 1e-9,
    "loss_f32": 1e-4,
    "meaning": "tensors: max|diff| / max|ref| per tensor; losses: relative",
}
MASK = (1 << 64) - 1
GAMMA = 0x9E3779B97F4A7C15


# ---------------------------------------------------------------- random streams


def mix(z):
    z = (z + GAMMA) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def stream(seed, purpose, count):
    """The first `count` 64-bit outputs of the named stream, as a uint64 array."""
    h = 0xCBF29CE484222325
    for b in purpose.encode():
        h = ((h ^ b) * 0x100000001B3) & MASK
    start = mix(seed ^ h)
    with np.errstate(over="ignore"):
        z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(GAMMA) + np.uint64(start)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def uniform(seed, purpose, count):
    return (stream(seed, purpose, count) >> np.uint64(11)).astype(np.float64) / 2.0**53


def below(seed, purpose, count, n):
    return [(int(x) * n) >> 64 for x in stream(seed, purpose, count)]


# ---------------------------------------------------------------- configurations

LLAMA = {
    "model_type": "llama",
    "vocab_size": 97,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "intermediate_size": 80,
    "max_position_embeddings": 64,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "attention_bias": False,
    "tie_word_embeddings": True,
}
GPT2 = {
    "model_type": "gpt2",
    "vocab_size": 97,
    "n_embd": 48,
    "n_layer": 2,
    "n_head": 4,
    "n_inner": 80,
    "n_positions": 32,
    "layer_norm_epsilon": 1e-5,
    "activation_function": "gelu_new",
    "tie_word_embeddings": True,
}
CASES = {
    "nano-llama": LLAMA,
    "nano-llama-untied": LLAMA | {"tie_word_embeddings": False},
    "nano-qwen2": LLAMA | {"model_type": "qwen2", "attention_bias": True, "rms_norm_eps": 1e-6},
    "nano-qwen3": LLAMA | {"model_type": "qwen3", "head_dim": 16, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0},
    "nano-gpt2": GPT2,
    "nano-llama-packed": LLAMA,
    "nano-llama-long": LLAMA | {"max_position_embeddings": 256},
}
SIZES = {"nano-llama-long": (2, 168)}
BATCH, LENGTH = 3, 20
# Two documents a row, split at a different place in each row; long rows are cut at no multiple of a power of two.
DOCUMENTS = {"nano-llama-packed": [[8, 12], [11, 9], [13, 7]], "nano-llama-long": [[168], [75, 93]]}
# Ids of "The capital of France is Paris, and the capital of Germany is Berlin. In 2024, 3 apples cost $12."
SMOLLM2_IDS = [
    504, 3575, 282, 4649, 314, 7042, 28, 284, 260, 3575, 282, 4521, 314, 11452, 30, 533, 216, 34, 32, 34, 36, 28,
    216, 35, 13855, 1708, 1885, 33, 34, 30,
]  # fmt: skip


def shapes(c):
    """Tensor name -> shape, in the order of the checkpoint."""
    out = {}
    if c["model_type"] == "gpt2":
        d, f = c["n_embd"], c["n_inner"]
        out["wte.weight"] = (c["vocab_size"], d)
        out["wpe.weight"] = (c["n_positions"], d)
        for i in range(c["n_layer"]):
            p = f"h.{i}."
            out[p + "ln_1.weight"] = out[p + "ln_1.bias"] = (d,)
            out |= {p + "attn.c_attn.weight": (d, 3 * d), p + "attn.c_attn.bias": (3 * d,)}
            out |= {p + "attn.c_proj.weight": (d, d), p + "attn.c_proj.bias": (d,)}
            out[p + "ln_2.weight"] = out[p + "ln_2.bias"] = (d,)
            out |= {p + "mlp.c_fc.weight": (d, f), p + "mlp.c_fc.bias": (f,)}
            out |= {p + "mlp.c_proj.weight": (f, d), p + "mlp.c_proj.bias": (d,)}
        out["ln_f.weight"] = out["ln_f.bias"] = (d,)
        return out
    d, f, hd = c["hidden_size"], c["intermediate_size"], c["head_dim"]
    h, kv = c["num_attention_heads"], c["num_key_value_heads"]
    out["model.embed_tokens.weight"] = (c["vocab_size"], d)
    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        out[p + "input_layernorm.weight"] = (d,)
        for n, rows in (("q", h * hd), ("k", kv * hd), ("v", kv * hd)):
            out[p + f"self_attn.{n}_proj.weight"] = (rows, d)
            if c["attention_bias"]:
                out[p + f"self_attn.{n}_proj.bias"] = (rows,)
        if c["model_type"] == "qwen3":
            out[p + "self_attn.q_norm.weight"] = out[p + "self_attn.k_norm.weight"] = (hd,)
        out[p + "self_attn.o_proj.weight"] = (d, h * hd)
        out[p + "post_attention_layernorm.weight"] = (d,)
        out[p + "mlp.gate_proj.weight"] = out[p + "mlp.up_proj.weight"] = (f, d)
        out[p + "mlp.down_proj.weight"] = (d, f)
    out["model.norm.weight"] = (d,)
    if not c["tie_word_embeddings"]:
        out["lm_head.weight"] = (c["vocab_size"], d)
    return out


def initial(name, shape):
    x = 2.0 * uniform(SEED, name, int(np.prod(shape))) - 1.0
    if name.endswith(".bias"):
        x = x * 0.05
    elif len(shape) == 1:
        x = 1.0 + x * 0.1
    else:
        x = x * 0.08
    return torch.from_numpy(x.reshape(shape))


# ---------------------------------------------------------------- models


def rms_norm(x, w, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * w


def rotate_half(x, position, theta):
    """Rotary embedding; the pair of channel i is channel i + head_dim / 2."""
    half = x.shape[-1] // 2
    frequency = theta ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = position.to(torch.float64)[..., None] * frequency  # [batch, length, half]
    cos, sin = angle.cos().to(x.dtype)[:, None], angle.sin().to(x.dtype)[:, None]
    a, b = x[..., :half], x[..., half:]
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def attention(q, k, v, allowed):
    """q, k, v: [batch, heads, length, head_dim]; allowed: [batch, length, length]."""
    score = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    score = score.masked_fill(~allowed[:, None], float("-inf"))
    return score.softmax(-1) @ v


def heads(x, count):
    return x.unflatten(-1, (count, -1)).transpose(1, 2)


def llama(c, p, ids, position, allowed):
    h, kv, eps = c["num_attention_heads"], c["num_key_value_heads"], c["rms_norm_eps"]
    x = p["model.embed_tokens.weight"][ids]
    for i in range(c["num_hidden_layers"]):
        w = lambda n: p[f"model.layers.{i}.{n}"]  # noqa: E731
        bias = lambda n: p.get(f"model.layers.{i}.{n}")  # noqa: E731
        y = rms_norm(x, w("input_layernorm.weight"), eps)
        q, k, v = (F.linear(y, w(f"self_attn.{n}_proj.weight"), bias(f"self_attn.{n}_proj.bias")) for n in "qkv")
        q, k, v = heads(q, h), heads(k, kv), heads(v, kv)
        if c["model_type"] == "qwen3":
            q = rms_norm(q, w("self_attn.q_norm.weight"), eps)
            k = rms_norm(k, w("self_attn.k_norm.weight"), eps)
        q, k = rotate_half(q, position, c["rope_theta"]), rotate_half(k, position, c["rope_theta"])
        k, v = k.repeat_interleave(h // kv, 1), v.repeat_interleave(h // kv, 1)
        y = attention(q, k, v, allowed).transpose(1, 2).flatten(2)
        x = x + F.linear(y, w("self_attn.o_proj.weight"))
        y = rms_norm(x, w("post_attention_layernorm.weight"), eps)
        y = F.silu(F.linear(y, w("mlp.gate_proj.weight"))) * F.linear(y, w("mlp.up_proj.weight"))
        x = x + F.linear(y, w("mlp.down_proj.weight"))
    x = rms_norm(x, p["model.norm.weight"], eps)
    return F.linear(x, p.get("lm_head.weight", p["model.embed_tokens.weight"]))


def gpt2(c, p, ids, position, allowed):
    d, eps = c["n_embd"], c["layer_norm_epsilon"]
    x = p["wte.weight"][ids] + p["wpe.weight"][position]
    for i in range(c["n_layer"]):
        w = lambda n: p[f"h.{i}.{n}"]  # noqa: E731
        norm = lambda n, x: F.layer_norm(x, (d,), w(n + ".weight"), w(n + ".bias"), eps)  # noqa: E731
        conv = lambda n, x: x @ w(n + ".weight") + w(n + ".bias")  # noqa: E731
        q, k, v = (heads(t, c["n_head"]) for t in conv("attn.c_attn", norm("ln_1", x)).split(d, -1))
        x = x + conv("attn.c_proj", attention(q, k, v, allowed).transpose(1, 2).flatten(2))
        y = F.gelu(conv("mlp.c_fc", norm("ln_2", x)), approximate="tanh")
        x = x + conv("mlp.c_proj", y)
    x = F.layer_norm(x, (d,), p["ln_f.weight"], p["ln_f.bias"], eps)
    return F.linear(x, p["wte.weight"])


def forward(c, p, ids, documents):
    """Logits and the mean loss. `documents` holds the lengths in each row, or None for one a row."""
    batch, length = ids.shape
    documents = documents or [[length]] * batch
    position = torch.stack([torch.cat([torch.arange(n) for n in row]) for row in documents])
    number = torch.stack([torch.repeat_interleave(torch.arange(len(r)), torch.tensor(r)) for r in documents])
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    allowed = causal & (number[:, :, None] == number[:, None, :])
    logits = (gpt2 if c["model_type"] == "gpt2" else llama)(c, p, ids, position, allowed)
    live = number[:, 1:] == number[:, :-1]
    loss = F.cross_entropy(logits[:, :-1][live], ids[:, 1:][live])
    return logits, loss


# ---------------------------------------------------------------- the fixture


def summary(name, x, samples=SAMPLES):
    flat = x.detach().to(torch.float64).flatten()
    at = torch.tensor(below(SEED, "sample/" + name, samples, flat.numel()))
    return {
        "l2": flat.norm().item(),
        "sum": flat.sum().item(),
        "max_abs": flat.abs().max().item(),
        "samples": flat[at].tolist(),
    }


def training_losses(c, start, ids, documents, dtype):
    p = {n: t.to(dtype).clone().requires_grad_() for n, t in start.items()}
    opt = torch.optim.AdamW(
        p.values(), lr=ADAMW["lr"], betas=tuple(ADAMW["betas"]), eps=ADAMW["eps"], weight_decay=ADAMW["weight_decay"]
    )
    losses = []
    for _ in range(ADAMW["steps"]):
        opt.zero_grad()
        _, loss = forward(c, p, ids, documents)
        loss.backward()
        opt.step()
        losses.append(loss.item())
    return losses


def fixture(case, c, start, ids, documents, hvp):
    samples = 16 if case in SIZES else SAMPLES
    p = {n: t.to(torch.float64).clone().requires_grad_() for n, t in start.items()}
    logits, loss = forward(c, p, ids, documents)
    grads = dict(zip(p, torch.autograd.grad(loss, p.values(), create_graph=hvp), strict=True))
    out = {
        "generator": "reference/decoder.py",
        "case": case,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "dtype": "float64 unless a key says f32",
        "tolerance": TOLERANCE,
        "seed": SEED,
        "config": c,
        "batch": ids.shape[0],
        "length": ids.shape[1],
        "tokens": ids.flatten().tolist(),
    }
    if documents:
        out["documents"] = documents
    out["loss"] = loss.item()
    with torch.no_grad():
        out["loss_f32"] = forward(c, {n: t.to(torch.float32) for n, t in start.items()}, ids, documents)[1].item()
    out["logits"] = {"shape": list(logits.shape)} | summary("logits", logits, samples)
    # The parameters' own sums let the other side see a wrong stream before it looks at gradients.
    out["parameters"] = {
        n: {"shape": list(t.shape), "l2": t.norm().item(), "sum": t.sum().item()} for n, t in p.items()
    }
    out["gradient"] = {n: summary(n, g, samples) for n, g in grads.items()}
    if hvp:
        v = {n: torch.from_numpy(2.0 * uniform(SEED, "v/" + n, t.numel()) - 1.0).view(t.shape) for n, t in p.items()}
        dot = sum((g * v[n]).sum() for n, g in grads.items())
        product = torch.autograd.grad(dot, p.values())
        out["hvp"] = {n: summary(n, x, samples) for n, x in zip(p, product, strict=True)}
    del grads, logits, loss, p
    out["adamw"] = ADAMW
    out["losses_f64"] = training_losses(c, start, ids, documents, torch.float64)
    out["losses_f32"] = training_losses(c, start, ids, documents, torch.float32)
    return out


def smollm2(path):
    """Configuration and the first two layers of SmolLM2 from its GGUF, in Hugging Face names and layout."""
    from gguf import GGUFReader, dequantize

    c = LLAMA | {
        "vocab_size": 49152,
        "hidden_size": 576,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "head_dim": 64,
        "intermediate_size": 1536,
        "max_position_embeddings": 8192,
        "rope_theta": 100000.0,
    }
    tensors = {t.name: t for t in GGUFReader(path).tensors}
    names = {"model.embed_tokens.weight": "token_embd", "model.norm.weight": "output_norm"}
    parts = {
        "input_layernorm": "attn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    for i in range(c["num_hidden_layers"]):
        names |= {f"model.layers.{i}.{hf}.weight": f"blk.{i}.{g}" for hf, g in parts.items()}
    start = {}
    for name, shape in shapes(c).items():
        t = tensors[names[name] + ".weight"]
        x = dequantize(t.data, t.tensor_type).astype(np.float32)
        if "q_proj" in name or "k_proj" in name:
            # GGUF keeps rotary pairs next to each other; rotate-half wants the two halves of a head.
            x = x.reshape(-1, c["head_dim"] // 2, 2, shape[1]).swapaxes(1, 2)
        start[name] = torch.from_numpy(np.ascontiguousarray(x.reshape(shape))).to(torch.float64)
    return c, start, torch.tensor([SMOLLM2_IDS])


def write(case, data):
    """One line per tensor: readable in a diff, still a few kilobytes."""
    lines = []
    for key, value in data.items():
        if key in ("parameters", "gradient", "hvp"):
            rows = ",\n".join(f"  {json.dumps(n)}: {json.dumps(v)}" for n, v in value.items())
            lines.append(f" {json.dumps(key)}: {{\n{rows}\n }}")
        else:
            lines.append(f" {json.dumps(key)}: {json.dumps(value)}")
    path = ROOT / "fixtures" / "decoder" / f"{case}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{case}: loss {data['loss']:.12f}, {path.stat().st_size / 1024:.1f} kB")


def find_gguf(given):
    if given:
        return given
    for folder in filter(None, [os.environ.get("RHUMB_MODELS")]):
        for path in sorted(Path(folder).rglob("SmolLM2-135M-Instruct*.gguf")):
            return path
    return None


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("cases", nargs="*", metavar="CASE", help="default: every case")
    arguments.add_argument("--gguf", help="SmolLM2-135M-Instruct GGUF file")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    for case in given.cases or [*CASES, "smollm2-2layer"]:
        if case == "smollm2-2layer":
            path = find_gguf(given.gguf)
            if path is None:
                hint = f"{case}: run scripts/fetch-models.sh and set RHUMB_MODELS, or give --gguf FILE"
                if given.cases:
                    raise SystemExit(hint)
                print(f"skipped {hint}", file=sys.stderr)
                continue
            c, start, ids = smollm2(path)
            write(case, fixture(case, c, start, ids, None, hvp=False))
            continue
        if case not in CASES:
            raise SystemExit(f"no case {case}; there are: {', '.join([*CASES, 'smollm2-2layer'])}")
        c = CASES[case]
        start = {n: initial(n, s) for n, s in shapes(c).items()}
        batch, length = SIZES.get(case, (BATCH, LENGTH))
        ids = torch.tensor(below(SEED, "tokens", batch * length, c["vocab_size"])).view(batch, length)
        hvp = case in ("nano-llama", "nano-llama-long")
        write(case, fixture(case, c, start, ids, DOCUMENTS.get(case), hvp))


if __name__ == "__main__":
    main()
