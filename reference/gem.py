# /// script
# requires-python = ">=3.10"
# dependencies = ["torch==2.15.0", "numpy==2.4.6"]
# ///
"""Reference values of the fine-tuning losses, by automatic differentiation of their definitions in float64.

    python reference/gem.py

Writes fixtures/gem/reference.json. The definition is the one with log-probabilities,

    L = -sum_i q_i w_i (log p_y - log p_i),   q = softmax(z / beta),   w_i = 1 or sigmoid(0.01 (z_i - z_y)),

with q and w detached; nothing here uses a closed form, so that the closed forms of the program are judged by
something else. Beside GEM stand its baselines: cross-entropy with an entropy bonus, label smoothing as PyTorch has it,
cross-entropy times the detached probability of the label (dft), and cross-entropy alone (ce, and neft on given scores). Only outputs are stored: scores come from the raw SplitMix64 stream of `seed`, row-major, as
(2u - 1) * scale with u = (x >> 11) / 2^53. Label -100 marks an ignored row.

pass@k is computed from binomial coefficients in exact arithmetic.
"""

import json
import math
import platform
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
MASK = (1 << 64) - 1
IGNORED = -100
BETAS = (0.3, 0.5, 0.7, 0.9, 1.0)
# name, parameter
BASELINES = [
    ("ce+entropy", 0.1), ("ce+entropy", 0.5), ("label-smoothing", 0.1), ("label-smoothing", 0.4),
    ("neft", 5.0), ("dft", None),
]
# name, seed, rows, vocabulary, scale, labels
CASES = [
    ("tiny", 1, 4, 8, 3.0, [2, 0, 7, 5]),
    ("masked", 2, 6, 32, 6.0, [3, IGNORED, 31, 0, IGNORED, 17]),
    ("wide", 3, 3, 1000, 12.0, [999, 1, 500]),
    ("hot", 4, 2, 16, 5000.0, [3, 9]),
]
PASS_AT_K = [(10, 3, 1), (10, 3, 5), (200, 1, 100), (200, 5, 10), (32, 0, 8), (16, 16, 16), (5, 2, 4)]


def splitmix(seed, n):
    out = np.empty(n)
    state = seed
    for i in range(n):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        x = state
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
        x ^= x >> 31
        out[i] = (x >> 11) / (1 << 53)
    return out


def scores(seed, rows, vocab, scale):
    u = splitmix(seed, rows * vocab).reshape(rows, vocab)
    return torch.tensor((u * 2 - 1) * scale, dtype=torch.float64)


def at_label(a, labels):
    return a.gather(1, labels[:, None])[:, 0]


def gem(z, labels, beta, link):
    log_p = torch.log_softmax(z, -1)
    q = torch.softmax(z / beta, -1).detach()
    if link == "logsigmoid":
        q = q * torch.sigmoid(0.01 * (z - at_label(z, labels)[:, None])).detach()
    return -(q * (at_label(log_p, labels)[:, None] - log_p)).sum(-1)


def cross_entropy(z, labels):
    return -at_label(torch.log_softmax(z, -1), labels)


def entropy(z):
    log_p = torch.log_softmax(z, -1)
    return -(log_p.exp() * log_p).sum(-1)


def label_smoothing(z, labels, share):
    return torch.nn.functional.cross_entropy(z, labels, reduction="none", label_smoothing=share)


def dft(z, labels):
    ce = cross_entropy(z, labels)
    return (-ce).exp().detach() * ce


def loss(name, x):
    """The loss of that name with its parameter, and the scalar whose gradient it has."""
    if name in ("ce", "neft"):
        return cross_entropy, cross_entropy
    if name == "dft":
        return dft, lambda z, labels: 1 - (-cross_entropy(z, labels)).exp()
    if name.startswith("gem-"):
        cold = lambda z, labels: x * cross_entropy(z / x, labels)
        return (lambda z, labels: gem(z, labels, x, name.removeprefix("gem-"))), cold
    of = {
        "ce+entropy": lambda z, labels: cross_entropy(z, labels) - x * entropy(z),
        "label-smoothing": lambda z, labels: label_smoothing(z, labels, x),
    }[name]
    return of, of


def variant(name, parameter, z, labels):
    z = z.clone().requires_grad_()
    value, lowered = loss(name, parameter)
    per_token = value(z, labels)
    per_token.mean().backward()
    return {
        "loss": name,
        "parameter": parameter,
        "per_token": per_token.detach().tolist(),
        "grad_row0_first4": z.grad[0, :4].tolist(),
        "grad_at_label": at_label(z.grad, labels).tolist(),
        "grad_l2": z.grad.norm().item(),
        "surrogate_mean": lowered(z.detach(), labels).mean().item(),
    }


def case(name, seed, rows, vocab, scale, labels):
    live = [i for i, y in enumerate(labels) if y != IGNORED]
    z = scores(seed, rows, vocab, scale)
    zl, yl = z[live], torch.tensor([labels[i] for i in live])
    variants = [("ce", None)] + [(f"gem-{h}", b) for h in ("linear", "logsigmoid") for b in BETAS] + BASELINES
    return {
        "name": name,
        "seed": seed,
        "rows": rows,
        "vocab": vocab,
        "scale": scale,
        "labels": labels,
        "row0_first4": z[0, :4].tolist(),
        "ce": cross_entropy(zl, yl).tolist(),
        "entropy": entropy(zl).tolist(),
        "losses": [variant(n, b, zl, yl) for n, b in variants],
    }


def accumulation():
    """One batch of four against micro-batches of three and one."""
    labels = [1, 2, 3, 4]
    per_token = gem(scores(9, 4, 12, 4.0), torch.tensor(labels), 0.7, "linear")
    return {
        "seed": 9, "rows": 4, "vocab": 12, "scale": 4.0, "labels": labels, "split": [3, 1], "beta": 0.7,
        "by_token": per_token.mean().item(),
        "mean_of_means": (per_token[:3].mean() + per_token[3:].mean()).item() / 2,
    }


def fixed_point():
    """Where gradient descent on free scores ends when labels follow `data`: p proportional to data^beta."""
    data, beta = [0.5, 0.25, 0.15, 0.07, 0.03], 0.7
    power = [d**beta for d in data]
    p = [x / sum(power) for x in power]
    h = lambda d: -sum(x * math.log(x) for x in d)
    return {"data": data, "beta": beta, "p": p, "entropy_data": h(data), "entropy_p": h(p)}


def pass_at_k(n, c, k):
    return float(1 - Fraction(math.comb(n - c, k), math.comb(n, k)))


def main():
    out = {
        "generator": "reference/gem.py",
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "dtype": "float64",
        "cases": [case(*c) for c in CASES],
        "accumulation": accumulation(),
        "fixed_point": fixed_point(),
        "pass_at_k": [[n, c, k, pass_at_k(n, c, k)] for n, c, k in PASS_AT_K],
    }
    text = json.dumps(out)
    for key in ('"cases"', '{"name"', '{"loss"', '"accumulation"', '"fixed_point"', '"pass_at_k"'):
        text = text.replace(key, "\n" + key)
    folder = ROOT / "fixtures" / "gem"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "reference.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
