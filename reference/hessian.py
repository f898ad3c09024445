# /// script
# requires-python = ">=3.10"
# dependencies = ["torch==2.15.0", "numpy==2.4.6"]
# ///
"""Reference values for the recipes of `hessian`, by numpy and by `torch.func`, all in float64.

    python reference/hessian.py

Writes fixtures/hessian/quadratic.json and fixtures/hessian/mlp.json. Inputs come from the SplitMix64 streams of
reference/decoder.py, which both sides regenerate.

Quadratic k of a case has the stream "quadratic/k" of SEED. Block by block it draws an n x n matrix of normal numbers,
column after column, whose Gram-Schmidt orthonormalisation is Q, then a start w0 of n. Normal numbers are Box-Muller's
with two uniform ones each, sqrt(-2 ln(1 - u)) cos(2 pi v). `kappa` is the condition number of D^-1/2 H D^-1/2 with
D = diag |H w0|; `gd`, `gd_best` and `adam` count steps until 1e-10 of the loss is left, each step being taken.
`adam_run` is not here: optimizers have references of their own.

The perceptrons have weights from the streams of the tensor names and inputs from "inputs", all 2u - 1, and labels from
"labels", below(classes). `hessian` is the lower triangle, row by row, of the Hessian in the first weight.
"""

import json
import platform

import numpy as np
import torch
import torch.nn.functional as F
from decoder import ROOT, SEED, below, uniform

OUT = ROOT / "fixtures" / "hessian"
GAP = 1e-10
MULTIPLES = [1.0, 0.999, 0.995, 0.99, 0.98, 0.95, 0.9, 0.8, 0.7, 0.5, 0.3, 0.1]
CASES = {
    "case-3": [[1, 2, 3], [99, 100, 101], [4998, 4999, 5000]],
    "case-4": [[1, 99, 4998], [2, 100, 4999], [3, 101, 5000]],
}
# Case 4 has trials of a hundred thousand steps.
TRIALS = {"case-3": 12, "case-4": 4}
LIMIT = 1_000_000
PERCEPTRONS = [
    {"inputs": 5, "hidden": 4, "classes": 6, "rows": 20, "loss": "cross-entropy"},
    {"inputs": 5, "hidden": 4, "classes": 6, "rows": 20, "loss": "mse"},
]


def quadratic(blocks, k):
    """The Hessian and the start of quadratic k."""
    u = uniform(SEED, f"quadratic/{k}", 2 * sum(len(b) ** 2 + len(b) for b in blocks)).reshape(-1, 2)
    normal = list(np.sqrt(-2.0 * np.log(1.0 - u[:, 0])) * np.cos(2.0 * np.pi * u[:, 1]))
    size = sum(map(len, blocks))
    hessian, start, at = np.zeros((size, size)), np.zeros(size), 0
    for values in blocks:
        n = len(values)
        drawn, normal = np.array(normal[: n * n]).reshape(n, n).T, normal[n * n :]
        q, r = np.linalg.qr(drawn)
        # Gram-Schmidt leaves a positive diagonal.
        q = q * np.sign(np.diag(r))
        hessian[at : at + n, at : at + n] = q @ np.diag(values) @ q.T
        start[at : at + n], normal = normal[:n], normal[n:]
        at += n
    return hessian, start


def steps(hessian, start, rates, limit):
    """Steps of w <- w - rates * H w until GAP of the loss is left, or `limit`."""
    w = start.copy()
    enough = None
    for k in range(limit):
        g = hessian @ w
        loss = 0.5 * w @ g
        enough = GAP * loss if enough is None else enough
        if loss <= enough:
            return k
        w -= rates * g
    return limit


def fewest(hessian, start, rates):
    best = LIMIT
    for m in MULTIPLES:
        best = min(best, steps(hessian, start, m * rates, best))
    return best


def trial(blocks, k):
    hessian, start = quadratic(blocks, k)
    values = np.linalg.eigvalsh(hessian)
    size = np.abs(hessian @ start)
    scaled = np.linalg.eigvalsh(hessian / np.sqrt(np.outer(size, size)))
    plain = 2.0 / (values[0] + values[-1])
    return {
        "kappa": scaled[-1] / scaled[0],
        "gd": steps(hessian, start, plain, LIMIT),
        "gd_best": fewest(hessian, start, plain),
        "adam": fewest(hessian, start, 2.0 / (scaled[0] + scaled[-1]) / size),
    }


def share(blocks, trials):
    """The part of random quadratics, with numpy's own random numbers, that Adam conditions to 1000 or better."""
    rng = np.random.default_rng(0)
    small = 0
    for _ in range(trials):
        low, high = np.inf, 0.0
        for values in blocks:
            n = len(values)
            q, r = np.linalg.qr(rng.normal(size=(n, n)))
            q = q * np.sign(np.diag(r))
            h = q @ np.diag(values) @ q.T
            size = np.abs(h @ rng.normal(size=n))
            eig = np.linalg.eigvalsh(h / np.sqrt(np.outer(size, size)))
            low, high = min(low, eig[0]), max(high, eig[-1])
        small += high / low <= 1000.0
    return small / trials


def signed(purpose, *shape):
    return torch.from_numpy(2.0 * uniform(SEED, purpose, int(np.prod(shape))) - 1.0).reshape(shape)


def perceptron(case):
    hidden, inputs, classes, rows = (case[k] for k in ("hidden", "inputs", "classes", "rows"))
    first, last = signed("layers.0.weight", hidden, inputs), signed("layers.1.weight", classes, hidden)
    x = signed("inputs", rows, inputs)
    y = torch.tensor(below(SEED, "labels", rows, classes))

    def loss(w):
        scores = torch.relu(x @ w.T) @ last.T
        if case["loss"] == "mse":
            return F.mse_loss(scores, F.one_hot(y, classes).double())
        return F.cross_entropy(scores, y)

    n = hidden * inputs
    h = torch.func.hessian(loss)(first).reshape(n, n)
    square = (h * h).reshape(hidden, inputs, hidden, inputs)
    inside = sum(square[i, :, i].sum() for i in range(hidden)) / square.sum()
    lower = h[torch.tril_indices(n, n).unbind()]
    return case | {"value": loss(first).item(), "inside": inside.item(), "hessian": lower.tolist()}


def write(name, versions, cases):
    head = {"generator": "reference/hessian.py", "versions": {"python": platform.python_version(), **versions}, "seed": SEED}
    rows = ",\n".join("  " + json.dumps(c) for c in cases)
    text = ",\n".join(f" {json.dumps(k)}: {json.dumps(v)}" for k, v in head.items())
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / f"{name}.json").write_text(f'{{\n{text},\n "cases": [\n{rows}\n ]\n}}\n')


def main():
    cases = []
    for name, blocks in CASES.items():
        trials = [trial(blocks, k) for k in range(TRIALS[name])]
        cases.append({"name": name, "blocks": blocks, "share": share(blocks, 4000), "trials": trials})
        print(name, "at most 1000:", cases[-1]["share"], *trials[:3], sep="\n  ")
    write("quadratic", {"numpy": np.__version__}, cases)
    perceptrons = [perceptron(case) for case in PERCEPTRONS]
    write("mlp", {"torch": torch.__version__}, perceptrons)
    for p in perceptrons:
        print(p["loss"], p["value"], "inside", p["inside"])


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
