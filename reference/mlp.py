# /// script
# requires-python = ">=3.10"
# dependencies = ["torch==2.15.0", "numpy==2.4.6"]
# ///
"""Reference values of multilayer perceptrons, by `torch.nn` modules and autograd.

    python reference/mlp.py

Writes fixtures/mlp/<case>.json. Inputs come from the SplitMix64 streams of reference/decoder.py, which both
sides regenerate. With u = uniform in [0, 1), row-major, one stream per tensor named `layers.i.weight` or
`layers.i.bias`:
  weights                (2u - 1) * 0.8
  biases                 (2u - 1) * 0.2
  inputs, target values  streams "inputs" and "targets", 2u - 1
  labels                 stream "labels", below(outputs)
  direction of the HVP   stream "v/" + name, 2u - 1

The loss is `F.cross_entropy` or `F.mse_loss` with their default mean. `losses` are seen before each of ten
AdamW steps on that same batch. All in f64, tensors whole and flat.
"""

import json
import platform

import numpy as np
import torch
import torch.nn.functional as F
from decoder import ADAMW, ROOT, SEED, below, uniform
from torch import nn

ROWS = 7
CASES = {
    "tanh-cross-entropy": ([5, 8, 6, 3], "tanh", True, "cross-entropy"),
    "relu-cross-entropy": ([4, 9, 5], "relu", False, "cross-entropy"),
    "gelu-mse": ([3, 8, 8, 2], "gelu", True, "mse"),
    "gelu-tanh-mse": ([3, 6, 1], "gelu-tanh", True, "mse"),
    "silu-mse": ([4, 6, 2], "silu", False, "mse"),
    "linear-cross-entropy": ([6, 4], "relu", True, "cross-entropy"),
}
ACTIVATIONS = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "gelu-tanh": lambda: nn.GELU(approximate="tanh"),
}


def signed(purpose, *shape):
    return torch.from_numpy(2.0 * uniform(SEED, purpose, int(np.prod(shape))) - 1.0).reshape(shape)


def build(sizes, activation, bias):
    """The module, and its parameters under our names."""
    layers, named = [], {}
    for i, (inp, out) in enumerate(zip(sizes, sizes[1:], strict=False)):
        if i:
            layers.append(ACTIVATIONS[activation]())
        linear = nn.Linear(inp, out, bias=bias, dtype=torch.float64)
        layers.append(linear)
        named[f"layers.{i}.weight"] = linear.weight
        if bias:
            named[f"layers.{i}.bias"] = linear.bias
    with torch.no_grad():
        for name, p in named.items():
            p.copy_(signed(name, *p.shape) * (0.2 if name.endswith("bias") else 0.8))
    return nn.Sequential(*layers), named


def fixture(case):
    sizes, activation, bias, kind = CASES[case]
    x = signed("inputs", ROWS, sizes[0])
    if kind == "mse":
        y = signed("targets", ROWS, sizes[-1])
    else:
        y = torch.tensor(below(SEED, "labels", ROWS, sizes[-1]))
    criterion = F.mse_loss if kind == "mse" else F.cross_entropy
    model, named = build(sizes, activation, bias)
    outputs = model(x)
    loss = criterion(outputs, y)
    grads = torch.autograd.grad(loss, named.values(), create_graph=True)
    dot = sum((g * signed("v/" + n, *g.shape)).sum() for n, g in zip(named, grads, strict=True))
    # The Hessian of a piecewise linear model with squared error may not reach every tensor.
    product = torch.autograd.grad(dot, named.values(), allow_unused=True, materialize_grads=True)
    flat = lambda tensors: {n: t.flatten().tolist() for n, t in zip(named, tensors, strict=True)}  # noqa: E731
    out = {
        "generator": "reference/mlp.py",
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "seed": SEED,
        "rows": ROWS,
        "config": {"sizes": sizes, "activation": activation, "bias": bias, "loss": kind},
        "loss": loss.item(),
        "outputs": outputs.flatten().tolist(),
        "gradient": flat(grads),
        "hvp": flat(product),
        "adamw": ADAMW,
    }
    settings = {"betas": tuple(ADAMW["betas"]), "eps": ADAMW["eps"], "weight_decay": ADAMW["weight_decay"]}
    optimizer = torch.optim.AdamW(model.parameters(), lr=ADAMW["lr"], **settings)
    out["losses"] = []
    for _ in range(ADAMW["steps"]):
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        out["losses"].append(loss.item())
    return out


def write(case, data):
    lines = []
    for key, value in data.items():
        if key in ("gradient", "hvp"):
            rows = ",\n".join(f"  {json.dumps(n)}: {json.dumps(v)}" for n, v in value.items())
            lines.append(f" {json.dumps(key)}: {{\n{rows}\n }}")
        else:
            lines.append(f" {json.dumps(key)}: {json.dumps(value)}")
    path = ROOT / "fixtures" / "mlp" / f"{case}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{case}: loss {data['loss']:.12f}, {path.stat().st_size / 1024:.1f} kB")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in CASES:
        write(name, fixture(name))
