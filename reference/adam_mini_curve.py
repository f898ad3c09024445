# /// script
# requires-python = ">=3.10"
# dependencies = ["adam-mini==1.1.1", "torch==2.15.0", "numpy==2.4.6"]
# ///
"""Loss curve of a nano Llama trained by the official package adam-mini, on the CPU in float32.

    python reference/adam_mini_curve.py

Writes fixtures/adam-mini/curve.json: the loss before each step. The model is that of reference/decoder.py, its
initial weights come from the same SplitMix64 streams. Step k = 0, 1, ... trains on a fresh batch: row r is drawn
from stream "tokens/k/r", one x = below(4 vocab) a token, which is x itself if that is a token, and
(5 previous + 7) mod vocab otherwise; before the first comes 0. The learning rate of step k is
lr min(1, (k + 1) / 20).

The tolerance is on the difference of a loss. `adamw` is the same training by torch.optim.AdamW, with the package's
choice of what decays: a tolerance that it also meets would prove nothing. `rounding` is the largest difference
between the package's curves in float32 and in float64, over the first fifty losses and over all.
"""

import importlib.metadata
import json
import os
import platform
import sys

# The package asks how many GPUs there are and then wants a process group; parity is a matter of the CPU.
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np
import torch
from decoder import LLAMA, ROOT, SEED, below, forward, initial, shapes

# The folder of this script holds one that bears the name of the package.
sys.path.pop(0)

from adam_mini import Adam_mini

CONFIG = LLAMA | {
    "vocab_size": 128,
    "hidden_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "intermediate_size": 256,
}
STEPS, BATCH, LENGTH, WARMUP = 201, 4, 32, 20
SETTINGS = {"lr": 2e-3, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1}


def row(step, number):
    vocab, out, last = CONFIG["vocab_size"], [], 0
    for x in below(SEED, f"tokens/{step}/{number}", LENGTH, 4 * vocab):
        last = x if x < vocab else (5 * last + 7) % vocab
        out.append(last)
    return out


def adam_mini(params):
    s = SETTINGS
    return Adam_mini(
        params.items(), lr=s["lr"], betas=(s["beta1"], s["beta2"]), eps=s["eps"], weight_decay=s["weight_decay"],
        dim=CONFIG["hidden_size"], n_heads=CONFIG["num_attention_heads"], n_kv_heads=CONFIG["num_key_value_heads"],
        verbose=False,
    )  # fmt: skip


def adamw(params):
    s = SETTINGS
    groups = [
        {"params": [p for n, p in params.items() if ("norm" in n) is spared], "weight_decay": 0.0 if spared else s["weight_decay"]}
        for spared in (False, True)
    ]
    return torch.optim.AdamW(groups, lr=s["lr"], betas=(s["beta1"], s["beta2"]), eps=s["eps"])


def curve(build, dtype):
    start = {n: initial(n, shape) for n, shape in shapes(CONFIG).items()}
    params = {n: torch.nn.Parameter(t.to(dtype)) for n, t in start.items()}
    optimizer = build(params)
    losses = []
    for k in range(STEPS):
        ids = torch.tensor([row(k, r) for r in range(BATCH)])
        optimizer.zero_grad()
        _, loss = forward(CONFIG, params, ids, None)
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = SETTINGS["lr"] * min(1.0, (k + 1) / WARMUP)
        optimizer.step()
        losses.append(loss.item())
    return losses


def main():
    torch.set_num_threads(1)
    single, double = curve(adam_mini, torch.float32), curve(adam_mini, torch.float64)
    apart = np.abs(np.array(single) - np.array(double))
    out = {
        "generator": "reference/adam_mini_curve.py",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "adam-mini": importlib.metadata.version("adam-mini"),
        },
        "dtype": "float32",
        "tolerance": 1e-4,
        "seed": SEED,
        "config": CONFIG,
        "batch": BATCH,
        "length": LENGTH,
        "warmup": WARMUP,
        "optimizer": {"kind": "adam-mini", "preset": "1.1.1", **SETTINGS},
        "first_tokens": row(0, 0),
        "rounding": {"first_50": float(apart[:50].max()), "all": float(apart.max())},
        "losses": single,
        "adamw": curve(adamw, torch.float32),
    }
    lines = ",\n".join(f" {json.dumps(k)}: {json.dumps(v)}" for k, v in out.items())
    path = ROOT / "fixtures" / "adam-mini" / "curve.json"
    path.write_text("{\n" + lines + "\n}\n")
    control = np.abs(np.array(single) - np.array(out["adamw"]))
    print(f"{single[0]:.4f} -> {single[-1]:.4f}; rounding {out['rounding']}; AdamW {control[:50].max():.1e}, {control[-1]:.1e}")


if __name__ == "__main__":
    main()
