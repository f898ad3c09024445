# /// script
# requires-python = ">=3.10"
# dependencies = ["adam-mini==1.1.1", "lion-pytorch==0.2.5", "torch==2.15.0", "numpy==2.4.6"]
# ///
"""Reference trajectories of every optimizer, on the CPU in float64.

    python reference/optimizers.py          # every case
    python reference/optimizers.py CASE...  # some

Writes fixtures/optimizers/<case>.json: the configuration and the parameters after the last step. Inputs come from
SplitMix64 streams that both sides regenerate, as reference/adam_mini.py says.

Where an implementation exists it is the oracle: torch.optim.SGD, AdamW, Adafactor and Muon, and the packages adam-mini and
lion-pytorch. torch.optim.Muon runs its Newton-Schulz iteration in bfloat16; here that function is replaced by the same iteration in
float64, everything else is PyTorch's. Adafactor with a first moment or a fixed learning rate, and SlimAdam, are
written out from the papers.
"""

import json
import math
import os
import platform
import sys
from pathlib import Path

# adam-mini asks how many GPUs there are and then wants a process group; parity is a matter of the CPU.
os.environ["CUDA_VISIBLE_DEVICES"] = ""

# The folder of this script holds one that bears the name of a package it imports.
sys.path.pop(0)

import numpy as np
import torch
import torch.optim._muon as torch_muon
from adam_mini import Adam_mini
from lion_pytorch import Lion

ROOT = Path(__file__).resolve().parent.parent
SEED = 20261125
STEPS = 20
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


LAYER = "model.layers.0."
TENSORS = [
    ("model.embed_tokens.weight", (7, 6), "embed"),
    (LAYER + "self_attn.q_proj.weight", (6, 6), {"query": {"head_dim": 3}}),
    (LAYER + "self_attn.k_proj.weight", (3, 6), {"key": {"head_dim": 3}}),
    (LAYER + "self_attn.v_proj.weight", (3, 6), {"value": {"head_dim": 3}}),
    (LAYER + "self_attn.o_proj.weight", (6, 6), "attn-out"),
    (LAYER + "mlp.up_proj.weight", (10, 6), "mlp"),
    (LAYER + "mlp.up_proj.bias", (10,), "bias"),
    (LAYER + "mlp.down_proj.weight", (6, 10), "mlp"),
    (LAYER + "input_layernorm.weight", (6,), "norm"),
    ("lm_head.weight", (7, 6), "head"),
]
ROLE = {name: role if isinstance(role, str) else next(iter(role)) for name, _, role in TENSORS}
ADAM = dict(beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1)


def decays(name):
    return ROLE[name] not in ("norm", "bias")


def groups(params, wd):
    return [dict(params=[p], weight_decay=wd if decays(n) else 0.0) for n, p in params]


def torch_adam(params, h, lr):
    return torch.optim.AdamW(groups(params, h["weight_decay"]), lr=lr, betas=(h["beta1"], h["beta2"]), eps=h["eps"])


def newton_schulz(grad, coefficients, steps, eps):
    a, b, c = coefficients
    x = grad.clone()
    if grad.size(0) > grad.size(1):
        x = x.T
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if grad.size(0) > grad.size(1) else x


torch_muon._zeropower_via_newtonschulz = newton_schulz


class Muon:
    """torch.optim.Muon for hidden matrices, cut into heads on demand, and torch.optim.AdamW for the rest."""

    def __init__(self, params, c):
        m = c["muon"]
        self.pieces, rest = [], []
        for name, p in params:
            if ROLE[name] in ("embed", "head", "norm", "bias"):
                rest.append((name, p))
                continue
            split = {"off": (), "qk": ("query", "key"), "qkv": ("query", "key", "value")}[m["per_head"]]
            rows = 3 if ROLE[name] in split else p.shape[0]
            for i in range(0, p.shape[0], rows):
                self.pieces.append((p, slice(i, i + rows), torch.nn.Parameter(p.detach()[i : i + rows].clone())))
        self.muon = torch.optim.Muon(
            [piece for _, _, piece in self.pieces], lr=c["lr"], weight_decay=c["weight_decay"], momentum=m["momentum"],
            nesterov=m["nesterov"], adjust_lr_fn=m["adjust_lr"],
        )
        self.adamw = torch_adam(rest, c, c["lr"] * m["adamw_lr_ratio"])

    def step(self):
        for p, rows, piece in self.pieces:
            piece.grad = p.grad[rows].clone()
        self.muon.step()
        self.adamw.step()
        for p, rows, piece in self.pieces:
            p.data[rows] = piece.data


class PaperAdafactor:
    """Shazeer and Stern, Algorithms 4 and 5, with PyTorch's placing of the epsilons and a first moment."""

    def __init__(self, params, c):
        self.params, self.c, self.t, self.state = params, c, 0, {}

    def step(self):
        c, a = self.c, self.c["adafactor"]
        self.t += 1
        new = self.t ** a["beta2_decay"]
        for name, p in self.params:
            g, eps1 = p.grad, a["eps1"]
            rho = min(c["lr"], 1 / math.sqrt(self.t)) if a["relative_step"] else c["lr"]
            alpha = rho * (max(a["eps2"], p.detach().pow(2).mean().sqrt().item()) if a["scale_parameter"] else 1.0)
            s = self.state.setdefault(name, dict(r=0.0, c=0.0, v=0.0, m=torch.zeros_like(p)))
            if decays(name):
                p.data *= 1 - c["lr"] * c["weight_decay"]
            if p.dim() > 1:
                s["r"] = s["r"] + new * ((g * g).mean(1) - s["r"])
                s["c"] = s["c"] + new * ((g * g).mean(0) - s["c"])
                v = torch.outer(s["r"], s["c"]) / s["r"].mean().clamp(min=eps1)
            else:
                s["v"] = s["v"] + new * (g * g - s["v"])
                v = s["v"]
            u = g / v.clamp(min=eps1**2).sqrt()
            u = alpha * u / max(1.0, u.pow(2).mean().sqrt().item() / a["clip_threshold"])
            if "beta1" in a:
                s["m"] = a["beta1"] * s["m"] + (1 - a["beta1"]) * u
                u = s["m"]
            p.data -= u


def snr(v, dim):
    ratio = v.mean(dim) ** 2 / v.var(dim, unbiased=False)
    return ratio.mean().item()


class SlimAdam:
    """Kalra et al.: Adam with means of second moments, the axis by role or by measured signal-to-noise ratio."""

    BY_ROLE = dict(
        query=(1,), key=(1,), embed=(1,), head=(1,), value=(0,), mlp=(0,), norm=None, bias=None, **{"attn-out": (0,)}
    )
    AXES = ((1,), (0,), (0, 1))

    def __init__(self, params, c):
        self.params, self.c, self.t = params, c, 0
        self.measure = c["slim_adam"]["measure_steps"]
        self.axes = {n: None if self.measure else self.BY_ROLE[ROLE[n]] for n, _ in params}
        self.m = {n: torch.zeros_like(p) for n, p in params}
        self.v = {n: self.compress(n, torch.zeros_like(p)) for n, p in params}
        self.ratios = {n: [] for n, _ in params}

    def compress(self, name, v):
        return v if self.axes[name] is None else v.mean(self.axes[name], keepdim=True)

    def step(self):
        c = self.c
        self.t += 1
        for name, p in self.params:
            g, m = p.grad, self.m[name]
            m += (1 - c["beta1"]) * (g - m)
            self.v[name] = c["beta2"] * self.v[name] + (1 - c["beta2"]) * self.compress(name, g * g)
            if decays(name):
                p.data *= 1 - c["lr"] * c["weight_decay"]
            v = self.v[name] / (1 - c["beta2"] ** self.t)
            p.data -= c["lr"] * (m / (1 - c["beta1"] ** self.t)) / (v.sqrt() + c["eps"])
        if self.t <= self.measure and self.t % max(1, self.measure // 10) == 0:
            for name, p in self.params:
                if p.dim() > 1:
                    self.ratios[name].append([snr(self.v[name], a) for a in self.AXES])
        if self.t == self.measure:
            for name, _ in self.params:
                if decays(name) and self.ratios[name]:
                    means = np.mean(self.ratios[name], axis=0)
                    best = int(np.argmax(means))
                    self.axes[name] = self.AXES[best] if means[best] > c["slim_adam"]["cutoff"] else None
                self.v[name] = self.compress(name, self.v[name])
            print("slim-adam chose", self.axes, file=sys.stderr)


def muon(**over):
    return dict(dict(momentum=0.95, nesterov=True, adjust_lr="original", per_head="off", adamw_lr_ratio=0.5), **over)


def adafactor(**over):
    base = dict(beta2_decay=-0.8, eps1=1e-6, eps2=1e-3, clip_threshold=1.0, relative_step=True, scale_parameter=True)
    return dict(base, **over)


CASES = {
    "sgd": dict(kind="sgd", lr=1e-2, weight_decay=0.1),
    "sgd-momentum": dict(kind="sgd", lr=1e-2, weight_decay=0.1, momentum=0.9),
    "sgd-nesterov": dict(kind="sgd", lr=1e-2, weight_decay=0.1, momentum=0.9, nesterov=True),
    "adamw": dict(kind="adamw", lr=1e-2, **ADAM),
    "adam-mini": dict(kind="adam-mini", lr=1e-2, preset="1.1.1", **ADAM),
    "lion": dict(kind="lion", lr=3e-3, weight_decay=0.3, lion=dict(beta1=0.9, beta2=0.98)),
    "adafactor": dict(kind="adafactor", lr=3e-2, weight_decay=0.1, adafactor=adafactor()),
    "adafactor-first-moment": dict(kind="adafactor", lr=0.5, weight_decay=0.01, adafactor=adafactor(beta1=0.9, clip_threshold=0.7)),
    "adafactor-fixed-lr": dict(
        kind="adafactor", lr=1e-2, weight_decay=0.1, adafactor=adafactor(relative_step=False, scale_parameter=False)
    ),
    "muon": dict(kind="muon", lr=2e-2, muon=muon(), **ADAM),
    "muon-match-rms": dict(
        kind="muon", lr=1e-2, muon=muon(adjust_lr="match_rms_adamw", adamw_lr_ratio=1.0, nesterov=False), **ADAM
    ),
    "muon-per-head": dict(kind="muon", lr=2e-2, muon=muon(per_head="qkv"), **ADAM),
    "slim-adam": dict(kind="slim-adam", lr=1e-2, slim_adam=dict(measure_steps=0, cutoff=1.0), **ADAM),
    "slim-adam-measured": dict(kind="slim-adam", lr=1e-2, slim_adam=dict(measure_steps=7, cutoff=5.0), **ADAM),
}


def build(c, params):
    match c["kind"]:
        case "sgd":
            return torch.optim.SGD(
                groups(params, c["weight_decay"]), lr=c["lr"], momentum=c.get("momentum", 0), nesterov=c.get("nesterov", False)
            )
        case "adamw":
            return torch_adam(params, c, c["lr"])
        case "adam-mini":
            return Adam_mini(
                params, lr=c["lr"], betas=(c["beta1"], c["beta2"]), eps=c["eps"], weight_decay=c["weight_decay"],
                dim=6, n_heads=2, n_kv_heads=1, verbose=False,
            )
        case "lion":
            return Lion(
                groups(params, c["weight_decay"]), lr=c["lr"], betas=(c["lion"]["beta1"], c["lion"]["beta2"])
            )
        case "adafactor":
            a = c["adafactor"]
            if "beta1" in a or not a["relative_step"]:
                return PaperAdafactor(params, c)
            return torch.optim.Adafactor(
                groups(params, c["weight_decay"]), lr=c["lr"], beta2_decay=a["beta2_decay"],
                eps=(a["eps1"], a["eps2"]), d=a["clip_threshold"],
            )
        case "muon":
            return Muon(params, c)
        case "slim-adam":
            return SlimAdam(params, c)


def run(case):
    c = CASES[case]
    params = [(n, torch.nn.Parameter(symmetric("p/" + n, shape))) for n, shape, _ in TENSORS]
    optimizer = build(c, params)
    for t in range(STEPS):
        for n, p in params:
            p.grad = symmetric(f"g/{t}/{n}", p.shape) * (t + 1)
        optimizer.step()
    return {
        "generator": "reference/optimizers.py",
        "case": case,
        "versions": {
            "python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__,
            "adam-mini": "1.1.1", "lion-pytorch": "0.2.5",
        },
        "dtype": "float64",
        "tolerance": {"rtol": 1e-10, "atol": 1e-12},
        "seed": SEED,
        "steps": STEPS,
        "optimizer": c,
        "tensors": [
            {"name": n, "shape": list(shape), "role": role, "p": p.detach().flatten().tolist()}
            for (n, p), (_, shape, role) in zip(params, TENSORS)
        ],
    }


def main():
    folder = ROOT / "fixtures" / "optimizers"
    folder.mkdir(parents=True, exist_ok=True)
    for case in sys.argv[1:] or CASES:
        lines = json.dumps(run(case), indent=None, separators=(", ", ": "))
        lines = lines.replace('{"name"', '\n{"name"').replace('"tensors"', '\n"tensors"')
        (folder / f"{case}.json").write_text(lines + "\n")


if __name__ == "__main__":
    main()
