# /// script
# requires-python = ">=3.10"
# dependencies = ["torch==2.15.0", "numpy==2.4.6"]
# ///
"""Time and peak memory of the output head with its loss beside PyTorch, in alternating pairs of one run.

    python reference/bench/head.py head [--ours EXE] [--tokens N] [--pairs N] [--repeat N] [--threads N] [--json FILE]

2048 tokens, width 576, vocabulary 49152, f32, every token live; random hidden states, weights and labels.

    head   hidden states and weights to the mean loss and its gradients with respect to both
    rows   given scores to the mean loss and its gradient: the same without the matrix products

Sides: ours with cross-entropy (the reference), gem-linear and gem-logsigmoid; peers with cross-entropy: `eager`
(F.linear, F.cross_entropy), `compiled` (the same under torch.compile) and, for the head, `linear-ce`
(F.linear_cross_entropy in its chunked form). Ours writes the gradient in place of the scores; the peers keep the scores
and write the gradient beside them, as autograd does.

Line protocol, spoken by `EXE LOSS TOKENS` as by the peers here (`--serve`): `head N` or `rows N` on standard input is
answered by {"ms": median milliseconds, "peak_bytes": ..., "loss": ...} or {"error": ...}; `quit` ends the process. The
first commands are warm-ups. Processes that are not measured are stopped (SIGSTOP) meanwhile. A side that is to show its
memory does only the head.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

from lm import Side, cpu_name, peak_bytes

WIDTH, VOCAB = 576, 49152


def serve(kind, tokens, threads):
    """The PyTorch side of the protocol. Only here is torch imported: the driver stays small."""
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    base = peak_bytes()
    target = torch.randint(VOCAB, (tokens,))
    h = (torch.randn(tokens, WIDTH)).requires_grad_()
    w = (torch.randn(VOCAB, WIDTH) * 0.05).requires_grad_()
    scores = []

    def head():
        if kind == "linear-ce":
            return F.linear_cross_entropy(h, w, target, options=torch.nn.LinearCrossEntropyOptions())
        return F.cross_entropy(F.linear(h, w), target)

    def rows():
        if kind == "linear-ce":
            raise KeyError
        if not scores:
            scores.append((torch.randn(tokens, VOCAB)).requires_grad_())
        return F.cross_entropy(scores[0], target)

    works = {"head": head, "rows": rows}
    if kind == "compiled":
        # Functions of their inputs alone, so that a compiler sees tensors and not a list.
        fused = torch.compile(lambda h, w: F.cross_entropy(F.linear(h, w), target))
        fused_rows = torch.compile(lambda z: F.cross_entropy(z, target))
        works = {"head": lambda: fused(h, w), "rows": lambda: (rows() if not scores else None, fused_rows(scores[0]))[1]}
    for line in sys.stdin:
        name, *count = line.split()
        if name == "quit":
            break
        try:
            times = []
            for _ in range(int(count[0]) if count else 1):
                for p in [h, w, *scores]:
                    p.grad = None
                start = time.perf_counter()
                loss = works[name]()
                loss.backward()
                times.append((time.perf_counter() - start) * 1e3)
            reply = {"ms": statistics.median(times), "peak_bytes": peak_bytes(), "base_bytes": base, "loss": loss.item()}
        except KeyError:
            reply = {"error": f"{kind} has no `{name}`"}
        except Exception as e:  # noqa: BLE001  (a compiler that is missing must not end the comparison)
            reply = {"error": f"{type(e).__name__}: {str(e).strip().splitlines()[0] if str(e).strip() else ''}"}
        print(json.dumps(reply), flush=True)


def sides(given, work):
    if given.ours:
        for loss in ("ce", "gem-linear", "gem-logsigmoid"):
            yield f"rhumb {loss}", [given.ours, loss, str(given.tokens)]
    me = [sys.executable, "-B", __file__, "head", "--tokens", str(given.tokens), "--threads", str(given.threads), "--serve"]
    for kind in ("eager", "compiled", "linear-ce") if work == "head" else ("eager", "compiled"):
        yield kind, [*me, kind]


def compare(given, work):
    """Alternating pairs of the first side and every other one; fresh processes, so that the peak is that of this work."""
    started = {}
    try:
        for name, command in sides(given, work):
            side = Side(name, command, given.threads)
            # The second warm-up sees pages and caches filled by the first.
            if side.ask(f"{work} 1") is None or side.ask(f"{work} 1") is None:
                side.close()
            else:
                started[name] = side
        reference, *others = started
        times, ratios = {n: [] for n in started}, {n: [] for n in others}
        for i in range(given.pairs):
            for other in others:
                order = [reference, other] if i % 2 == 0 else [other, reference]
                pair = {n: started[n].ask(f"{work} {given.repeat}") for n in order}
                for n, ms in pair.items():
                    times[n].append(ms)
                ratios[other].append(pair[other] / pair[reference])
        out = {"work": work, "tokens": given.tokens, "pairs": given.pairs, "reference": reference, "sides": {}}
        for n, side in started.items():
            ms = statistics.median(times[n])
            out["sides"][n] = {"ms": ms, "ms_min": min(times[n]), "ms_max": max(times[n]), "peak_bytes": side.peak}
            out["sides"][n]["base_bytes"] = side.info.get("base_bytes")
            if n in ratios:
                r = ratios[n]
                out["sides"][n]["ratio"] = {"median": statistics.median(r), "min": min(r), "max": max(r)}
        return out
    finally:
        for side in started.values():
            side.close()


def table(r):
    lines = [
        f"\n{r['work']}, {r['tokens']} tokens, {r['pairs']} alternating pairs; ratio = time / time of {r['reference']}",
        "| side | ms (min-max) | ratio, median (min-max) | peak MB | of it before the work |",
        "|---|---|---|---|---|",
    ]
    for name, s in r["sides"].items():
        q = s.get("ratio")
        ratio = f"{q['median']:.3f} ({q['min']:.3f}-{q['max']:.3f})" if q else "1"
        base = "-" if s["base_bytes"] is None else f"{s['base_bytes'] / 1e6:.0f}"
        lines.append(
            f"| {name} | {s['ms']:.1f} ({s['ms_min']:.1f}-{s['ms_max']:.1f}) | {ratio} "
            f"| {s['peak_bytes'] / 1e6:.0f} | {base} |"
        )
    return "\n".join(lines)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("what", choices=["head"])
    arguments.add_argument("--ours", metavar="EXE")
    arguments.add_argument("--tokens", type=int, default=2048)
    arguments.add_argument("--pairs", type=int, default=5)
    arguments.add_argument("--repeat", type=int, default=1)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--json", type=Path, metavar="FILE")
    arguments.add_argument("--serve", choices=["eager", "compiled", "linear-ce"], help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.serve:
        serve(given.serve, given.tokens, given.threads)
        return
    print(f"{cpu_name()}, {os.cpu_count()} logical cores, {given.threads} threads, f32, width {WIDTH}, vocabulary {VOCAB}")
    results = []
    for work in ("rows", "head"):
        results.append(compare(given, work))
        print(table(results[-1]), flush=True)
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
