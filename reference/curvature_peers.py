# /// script
# requires-python = ">=3.10"
# dependencies = ["torch==2.15.0", "numpy==2.4.6", "scipy==1.17.1", "curvlinops-for-pytorch==3.0.1", "hessian-eigenthings==1.0.0a5", "PyHessian==0.1"]
# ///
"""Curvature products, eigenvalues and traces of three small nets, by the tools that others use.

    python reference/curvature_peers.py            # every case
    python reference/curvature_peers.py CASE...    # some

Writes fixtures/hessian/peers-<case>.json. Only outputs are stored: inputs come from the SplitMix64 streams of
reference/decoder.py, which both sides make. Parameters, inputs and labels of

    mlp      a tanh net with cross-entropy are those of reference/mlp.py, 12 rows
    cnn      the case `cnn` of reference/vision.py, 12 rows
    decoder  a small Llama are those of reference/decoder.py, 3 x 9 tokens, one document a row

Vector k is the stream "v{k}/" + name of every tensor, projection k the stream "p{k}/" + name, 2u - 1. Of each product of the
Hessian, the Gauss-Newton matrix and the empirical Fisher matrix with vector k the fixture holds its norm in every tensor and
its inner products with three projections; of each matrix the ten largest eigenvalues and the trace. All in f64.

Products and traces are those of curvlinops, eigenvalues those of SciPy's `eigsh` on its operators. The script stops unless
every other opinion agrees to 1e-9 of the largest: the eigenvalues of the matrix written out, hessian-eigenthings' products
and Lanczos eigenvalues, and PyHessian's Hessian products. `agreement` has the largest differences.

Where the tools mean different things:
  batches       All take the mean over the rows of one batch. Of several, curvlinops and PyHessian weigh each by the rows of
                its inputs (of sequences the sequences, not the labels); hessian-eigenthings takes the plain mean.
  Fisher        curvlinops: with a mean, `1/N sum_n g_n g_n^T` over the N labels of a batch, one label being a sample, in
                sequences as well. Labels that cross-entropy ignores are counted: with n of N alive the matrix is N/n times
                the mean over those alive; `ignored` is that factor as found. hessian-eigenthings: an entry of the batch is
                a sample, so that a sequence counts with its mean gradient. It is asked where an entry has one label; the
                Fisher matrix of the decoder has no second opinion but its eigenvalues written out.
  Gauss-Newton  The same in both. PyHessian has neither of the two matrices.
"""

import json
import math
import platform
import sys
from importlib.metadata import version

import decoder
import mlp
import numpy as np
import torch
import torch.nn.functional as F
import vision
from curvlinops import EFLinearOperator, GGNLinearOperator, HessianLinearOperator
from decoder import ROOT, SEED, below, uniform
from hessian_eigenthings.algorithms import lanczos
from hessian_eigenthings.operators import EmpiricalFisherOperator, GGNOperator, HessianOperator
from pyhessian import hessian as PyHessian
from pyhessian.utils import hessian_vector_product
from scipy.sparse.linalg import eigsh
from torch import nn

ROWS = 12
TOP = 10
PROJECTIONS = 3
TOLERANCE = 1e-9
MLP = [8, 24, 16, 5]
LLAMA = decoder.LLAMA | {
    "vocab_size": 17, "hidden_size": 12, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 6,
    "intermediate_size": 16, "max_position_embeddings": 16,
}  # fmt: skip
BATCH, LENGTH = 3, 9
VECTORS = {"mlp": 20, "cnn": 5, "decoder": 5}


class Net(nn.Module):
    """Named tensors and what makes scores `[labels, classes]` of them."""

    def __init__(self, named, scores):
        super().__init__()
        # A dot is not allowed in the name of a parameter.
        self.names = {n: n.replace(".", "/") for n in named}
        for n, t in named.items():
            self.register_parameter(self.names[n], nn.Parameter(t.detach().clone()))
        self.scores = scores

    def forward(self, x):
        return self.scores({n: getattr(self, key) for n, key in self.names.items()}, x)


def perceptron():
    _, named = mlp.build(MLP, "tanh", True)

    def scores(p, x):
        for i in range(len(MLP) - 1):
            x = F.linear(torch.tanh(x) if i else x, p[f"layers.{i}.weight"], p[f"layers.{i}.bias"])
        return x

    labels = torch.tensor(below(SEED, "labels", ROWS, MLP[-1]))
    config = {"sizes": MLP, "activation": "tanh", "bias": True, "loss": "cross-entropy"}
    return Net(named, scores), mlp.signed("inputs", ROWS, MLP[0]), labels, {"config": config, "rows": ROWS}


def image_net():
    image, classes, net, _ = vision.CASES["cnn"]
    x = vision.signed("images", (ROWS, *image))
    named = vision.Params()
    vision.cnn(named, net, classes, x, False)

    def scores(p, x):
        held = vision.Params()
        held.update(p)
        return vision.cnn(held, net, classes, x, False)

    labels = torch.tensor(below(SEED, "labels", ROWS, classes))
    config = {"image": image, "classes": classes, "net": net}
    return Net(named, scores), x, labels, {"config": config, "rows": ROWS}


def language_model():
    named = {n: decoder.initial(n, s) for n, s in decoder.shapes(LLAMA).items()}
    position = torch.arange(LENGTH)[None]
    allowed = torch.ones(1, LENGTH, LENGTH, dtype=torch.bool).tril()

    # PyTorch has no forward derivative of the backward pass of `F.silu`, which curvlinops needs.
    F.silu = lambda x: x * torch.sigmoid(x)

    def scores(p, ids):
        return decoder.llama(LLAMA, p, ids, position, allowed)[:, :-1].reshape(-1, LLAMA["vocab_size"])

    ids = torch.tensor(below(SEED, "tokens", BATCH * LENGTH, LLAMA["vocab_size"])).view(BATCH, LENGTH)
    return Net(named, scores), ids, ids[:, 1:].flatten(), {"config": LLAMA, "batch": BATCH, "length": LENGTH}


NETS = {"mlp": perceptron, "cnn": image_net, "decoder": language_model}


def flat(net, purpose):
    draws = [2.0 * uniform(SEED, f"{purpose}/{n}", getattr(net, key).numel()) - 1.0 for n, key in net.names.items()]
    return torch.from_numpy(np.concatenate(draws))


def apart(a, b):
    """The largest difference over the largest entry."""
    return ((a - b).abs().max() / b.abs().max()).item()


def dense(op, n, columns=64):
    parts = [op @ torch.eye(n, dtype=torch.float64)[:, k : k + columns] for k in range(0, n, columns)]
    return torch.cat(parts, 1).detach()


def eigenthings(net, x, y):
    """The same matrices by hessian-eigenthings."""
    loss = lambda z, batch: F.cross_entropy(z, batch[1])  # noqa: E731
    call = lambda m, batch: m(batch[0])  # noqa: E731
    data = [(x, y)]
    ops = {
        "hessian": HessianOperator(net, data, lambda m, b: loss(m(b[0]), b)),
        "gauss-newton": GGNOperator(net, data, call, loss),
    }
    if len(x) == len(y):
        one = lambda m, s: F.cross_entropy(m(s[0][None]), s[1][None])  # noqa: E731
        ops["empirical-fisher"] = EmpiricalFisherOperator(net, data, one)
    return ops


def ignored(net, x, y):
    """What the Fisher matrix of curvlinops is multiplied by when labels are ignored."""
    some = y.clone()
    some[::3] = -100
    v = flat(net, "v0")
    product = EFLinearOperator(net, nn.CrossEntropyLoss(), list(net.parameters()), [(x, some)]) @ v
    live = (some >= 0).nonzero().flatten()
    want = torch.zeros_like(v)
    for i in live:
        g = torch.autograd.grad(F.cross_entropy(net(x)[i : i + 1], y[i : i + 1]), list(net.parameters()))
        g = torch.cat([t.flatten() for t in g])
        want += (g @ v) * g / len(live)
    factor = ((product @ want) / (want @ want)).item()
    assert apart(product, factor * want) < TOLERANCE and math.isclose(factor, len(y) / len(live), rel_tol=1e-9)
    return factor


def fixture(case):
    net, x, y, out = NETS[case]()
    params = list(net.parameters())
    sizes, n = [p.numel() for p in params], sum(p.numel() for p in params)
    criterion = nn.CrossEntropyLoss()
    vectors = [flat(net, f"v{k}") for k in range(VECTORS[case])]
    projections = [flat(net, f"p{k}") for k in range(PROJECTIONS)]
    out |= {"parameters": n, "loss": criterion(net(x), y).item(), "vectors": len(vectors)}
    others, worst, found = eigenthings(net, x, y), {}, {}

    def agree(who, what, a, b):
        off = apart(torch.as_tensor(a, dtype=torch.float64), torch.as_tensor(b, dtype=torch.float64))
        assert off < TOLERANCE, f"{case}, {who}: {what} off by {off:.1e}"
        worst[who] = max(worst.get(who, 0.0), off)

    kinds = {"hessian": HessianLinearOperator, "gauss-newton": GGNLinearOperator, "empirical-fisher": EFLinearOperator}
    for kind, make in kinds.items():
        op = make(net, criterion, params, [(x, y)])
        products = found[kind] = [(op @ v).detach() for v in vectors]
        matrix = dense(op, n)
        top = np.sort(eigsh(op.to_scipy(), k=TOP, which="LA", tol=1e-12, v0=vectors[0].numpy())[0])[::-1].copy()
        agree("the matrix written out", f"{kind} eigenvalues", top, torch.linalg.eigvalsh(matrix).flip(0)[:TOP])
        if kind in others:
            for v, p in zip(vectors, products, strict=True):
                agree("hessian-eigenthings", f"{kind} product", others[kind].matvec(v).detach(), p)
            steps = {"max_iter": min(n - 1, 200), "reorthogonalize": True}
            theirs = lanczos(others[kind], k=TOP, which="LA", tol=1e-12, seed=1, **steps)
            own = theirs.eigenvalues.sort(descending=True).values[:TOP]
            agree("hessian-eigenthings", f"{kind} eigenvalues", own, top)
        out[kind] = {
            "norms": [[t.norm().item() for t in p.split(sizes)] for p in products],
            "projections": [[(p @ q).item() for q in projections] for p in products],
            "top": top.tolist(),
            "trace": matrix.trace().item(),
        }
    third = PyHessian(net, criterion, data=(x, y), cuda=False)
    for v, product in zip(vectors, found["hessian"], strict=True):
        parts = [t.view_as(p) for t, p in zip(v.split(sizes), params, strict=True)]
        own = hessian_vector_product(third.gradsH, third.params, parts)
        agree("PyHessian", "Hessian product", torch.cat([t.flatten() for t in own]), product)
    net.zero_grad()
    return out | {"agreement": worst, "ignored": ignored(net, x, y)}


def write(case, data):
    packages = ["torch", "numpy", "scipy", "curvlinops-for-pytorch", "hessian-eigenthings", "PyHessian"]
    head = {
        "generator": "reference/curvature_peers.py",
        "versions": {"python": platform.python_version()} | {p: version(p) for p in packages},
        "seed": SEED,
    }
    lines = []
    for key, value in (head | data).items():
        if isinstance(value, dict) and "norms" in value:
            rows = ",\n".join(f"  {json.dumps(n)}: {json.dumps(v)}" for n, v in value.items())
            lines.append(f" {json.dumps(key)}: {{\n{rows}\n }}")
        else:
            lines.append(f" {json.dumps(key)}: {json.dumps(value)}")
    path = ROOT / "fixtures" / "hessian" / f"peers-{case}.json"
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{case}: {data['parameters']} parameters, {data['agreement']}, {path.stat().st_size / 1024:.1f} kB")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[1:] or NETS:
        write(name, fixture(name))
