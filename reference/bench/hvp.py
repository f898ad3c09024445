# /// script
# requires-python = ">=3.10"
# dependencies = ["torch==2.15.0", "numpy==2.4.6", "curvlinops-for-pytorch==3.0.1"]
# ///
"""Time of a Hessian-vector product beside PyTorch and curvlinops, in alternating rounds of one run.

    python reference/bench/hvp.py hvp [--ours EXE] [--rounds N] [--repeat N] [--threads N] [--json FILE]

The decoder `d128` of lm.py, 1.05 million parameters, 8 x 128 tokens, f32, mean cross-entropy over all tokens. Timed are

    gradient         value and gradient by our tape
    product          one exact Hessian-vector product by our tape, nothing kept from the one before
    four products    with four vectors around one linearization, a quarter of the time of all
    double backward  two calls of torch.autograd.grad, `scaled_dot_product_attention` in the kernel that can be
                     differentiated twice
    jvp of grad      torch.func, forward over reverse
    curvlinops       HessianLinearOperator on a flat vector, made once without its check
    gradient, PyTorch   forward and backward with the fastest kernels

PyTorch has no forward derivative of the backward pass of `silu`: `jvp of grad` and curvlinops take x * sigmoid(x), and
attention written out. Every round times all sides once, every other round in the opposite order; a ratio is that of one
round, and the median over rounds is told with the smallest and the largest. The sides have the same shapes, not the same
parameters; correctness is the business of reference/curvature_peers.py.

The protocol is that of lm.py. The first two commands to a side are warm-ups.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

from lm import SHAPES, Side, cpu_name, decoder, peak_bytes

SHAPE = "d128"
OURS = {"gradient": "grad", "product": "hvp", "four products": "products"}
PEERS = ["double backward", "jvp of grad", "curvlinops", "gradient, PyTorch"]
SHARED = 4


def serve(kind, threads):
    """The PyTorch side of the protocol. Only here is torch imported: the driver stays small."""
    import torch
    import torch.nn.functional as F
    from torch.nn.attention import SDPBackend, sdpa_kernel

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    s = argparse.Namespace(**SHAPES[SHAPE])
    if kind in ("jvp of grad", "curvlinops"):
        F.silu = lambda x: x * torch.sigmoid(x)
        causal = torch.ones(s.length, s.length, dtype=torch.bool).triu(1)

        def attention(q, k, v, **_):
            score = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).masked_fill(causal, float("-inf"))
            return score.softmax(-1) @ v

        F.scaled_dot_product_attention = attention
    _, Model = decoder(s)
    model = Model()
    for p in model.parameters():
        if p.dim() > 1:
            torch.nn.init.normal_(p, std=0.02)
    params = list(model.parameters())
    ids = torch.randint(s.vocab, (s.batch, s.length + 1))
    ids, target = ids[:, :-1].contiguous(), ids[:, 1:].flatten()
    v = [torch.randn_like(p) for p in params]

    def gradient():
        for p in params:
            p.grad = None
        model(ids, target).backward()

    def double_backward():
        with sdpa_kernel(SDPBackend.MATH):
            grads = torch.autograd.grad(model(ids, target), params, create_graph=True)
            return torch.autograd.grad(grads, params, grad_outputs=v)

    if kind == "jvp of grad":
        names = [n for n, _ in model.named_parameters()]
        values = {n: p.detach() for n, p in zip(names, params, strict=True)}
        directions = dict(zip(names, v, strict=True))
        loss = lambda p: torch.func.functional_call(model, p, (ids, target))  # noqa: E731
        work = lambda: torch.func.jvp(torch.func.grad(loss), (values,), (directions,))[1]  # noqa: E731
    elif kind == "curvlinops":
        from curvlinops import HessianLinearOperator

        class Scores(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.model = model

            def forward(self, x):
                return self.model.scores(x)

        # Its batches count by the rows of the inputs; one batch has weight one either way.
        data, criterion = [(ids, target)], torch.nn.CrossEntropyLoss()
        op = HessianLinearOperator(Scores(), criterion, params, data, check_deterministic=False)
        flat = torch.cat([t.flatten() for t in v])
        work = lambda: op @ flat  # noqa: E731
    else:
        work = {"double backward": double_backward, "gradient, PyTorch": gradient}[kind]

    for line in sys.stdin:
        name, *count = line.split()
        if name == "quit":
            break
        try:
            times = []
            for _ in range(int(count[0]) if count else 1):
                start = time.perf_counter()
                work()
                times.append((time.perf_counter() - start) * 1e3)
            reply = {"ms": statistics.median(times), "peak_bytes": peak_bytes()}
            reply["parameters"] = sum(p.numel() for p in params)
        except Exception as e:  # noqa: BLE001  (one peer that fails must not end the comparison)
            reply = {"error": f"{type(e).__name__}: {str(e).strip().splitlines()[0] if str(e).strip() else ''}"}
        print(json.dumps(reply), flush=True)


def compare(given):
    me = [sys.executable, "-B", __file__, "hvp", "--threads", str(given.threads), "--serve"]
    # Our three share a process, so that peak memory is that of the largest of them.
    ours = Side("rhumb", [given.ours, "--shape", SHAPE], given.threads) if given.ours else None
    sides = {n: (ours, c) for n, c in OURS.items()} if ours else {}
    sides |= {n: (Side(n, [*me, n], given.threads), "time") for n in PEERS}
    open_sides = {id(s): s for s, _ in sides.values()}
    try:
        for name, (side, command) in list(sides.items()):
            if side.ask(f"{command} 1") is None or side.ask(f"{command} 1") is None:
                del sides[name]
        counts = {s.info["parameters"] for s, _ in sides.values()}
        if len(counts) > 1:
            raise SystemExit(f"the sides have different numbers of parameters: {counts}")
        rounds = []
        for i in range(given.rounds):
            order = list(sides) if i % 2 == 0 else list(sides)[::-1]
            times = {n: sides[n][0].ask(f"{sides[n][1]} {given.repeat}") for n in order}
            if None in times.values():
                raise SystemExit("a side stopped answering")
            if "four products" in times:
                times["four products"] /= SHARED
            rounds.append(times)
        peak = {n: s.peak for n, (s, _) in sides.items()}
        return {"parameters": counts.pop(), "rounds": rounds, "peak_bytes": peak, "load": os.getloadavg()}
    finally:
        for side in open_sides.values():
            side.close()


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratios(rounds):
    """Names of ratios that can be told, with their spread over rounds."""
    there, of = set(rounds[0]), lambda a, b: spread([r[a] / r[b] for r in rounds])
    products = [n for n in ("double backward", "jvp of grad", "curvlinops") if n in there]
    out = {}
    if "product" in there:
        out |= {f"{n} / product": of(n, "product") for n in products}
        fastest = min(products, key=lambda n: statistics.median(r[n] for r in rounds))
        out["fastest peer / four products"] = of(fastest, "four products")
        out["product / gradient"] = of("product", "gradient")
        out["four products / gradient"] = of("four products", "gradient")
        out["gradient, PyTorch / gradient"] = of("gradient, PyTorch", "gradient")
    return out | {f"{n} / gradient, PyTorch": of(n, "gradient, PyTorch") for n in products}


def table(r):
    lines = [
        f"\n{SHAPE}, {r['parameters']} parameters, {len(r['rounds'])} rounds, load {r['load'][0]:.1f}",
        "| side | ms, median (min-max) | peak MB |",
        "|---|---|---|",
    ]
    show = lambda s, d: f"{s['median']:.{d}f} ({s['min']:.{d}f}-{s['max']:.{d}f})"  # noqa: E731
    for name in r["rounds"][0]:
        lines.append(f"| {name} | {show(spread([t[name] for t in r['rounds']]), 1)} | {r['peak_bytes'][name] / 1e6:.0f} |")
    lines += ["", "| ratio | median (min-max) |", "|---|---|"]
    lines += [f"| {n} | {show(s, 2)} |" for n, s in r["ratios"].items()]
    return "\n".join(lines)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("what", choices=["hvp"])
    arguments.add_argument("--ours", metavar="EXE")
    arguments.add_argument("--rounds", type=int, default=11)
    arguments.add_argument("--repeat", type=int, default=3, help="repetitions inside one measurement")
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--json", type=Path, metavar="FILE")
    arguments.add_argument("--serve", choices=PEERS, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.serve:
        serve(given.serve, given.threads)
        return
    import importlib.metadata as metadata

    tools = ", ".join(f"{p} {metadata.version(p)}" for p in ("torch", "curvlinops-for-pytorch"))
    print(f"{cpu_name()}, {os.cpu_count()} logical cores, {given.threads} threads, f32, {tools}")
    result = compare(given)
    result["ratios"] = ratios(result["rounds"])
    print(table(result))
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
