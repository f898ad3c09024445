# /// script
# requires-python = ">=3.10"
# dependencies = ["torch==2.15.0", "numpy==2.4.6", "adam-mini==1.1.1"]
# ///
"""Time of an optimizer step beside PyTorch and the official Adam-mini, in alternating pairs of one run.

    python reference/bench/optim.py optim [--ours EXE] [--pairs N] [--repeat N] [--threads N...] [--formats] [--json FILE]

Shapes: GPT-2 125M with separate projections, 124,373,760 parameters in f32: vocabulary 50304 with a tied head, 1024
positions, 12 layers, d 768, no biases. Gradients are fixed, so that nothing but the step runs. All sides: lr 1e-3,
betas 0.9 0.95, eps 1e-8, weight decay 0.1 on every tensor (the official package spares norms, as it always does).

Sides: ours as Adam-mini and AdamW; `torch.optim.AdamW` fused and foreach; the package adam-mini. With --formats also
ours with bfloat16 and eight-bit state. GB/s are the bytes that the algorithm must move over the time: AdamW reads
and writes parameters and both moments and reads the gradient, 28 bytes per parameter; Adam-mini 20; a side that
needs temporaries moves more than that.

Line protocol, spoken by `EXE CONFIGURATION` as by the peers here (`--serve`): `step N` on standard input is answered
by {"ms": median milliseconds, "peak_bytes": ..., "parameters": ..., "state_bytes": ...} or {"error": ...}; `quit`
ends the process. The first command is a warm-up. Processes that are not measured are stopped (SIGSTOP) meanwhile.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

from lm import Side, cpu_name, peak_bytes

D = 768
SETTINGS = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1, "decay_everywhere": True}


def tensors():
    yield "wte.weight", (50304, D)
    yield "wpe.weight", (1024, D)
    for i in range(12):
        yield f"h.{i}.ln_1.weight", (D,)
        for part in ("wq", "wk", "wv", "wo"):
            yield f"h.{i}.attn.{part}.weight", (D, D)
        yield f"h.{i}.ln_2.weight", (D,)
        yield f"h.{i}.mlp.c_fc.weight", (4 * D, D)
        yield f"h.{i}.mlp.c_proj.weight", (D, 4 * D)
    yield "ln_f.weight", (D,)


def serve(kind, threads):
    """The PyTorch side of the protocol. Only here is torch imported: the driver stays small."""
    import torch

    torch.set_num_threads(threads)
    named, n = [], 0
    for name, shape in tensors():
        p = torch.nn.Parameter(torch.full(shape, 0.1))
        i = torch.arange(n, n + p.numel(), dtype=torch.int64)
        p.grad = ((i * 7919 % 1000).float() * 1e-5 - 5e-3).view(shape)
        n += p.numel()
        named.append((name, p))
    s = SETTINGS
    common = {"lr": s["lr"], "betas": (s["beta1"], s["beta2"]), "eps": s["eps"], "weight_decay": s["weight_decay"]}
    if kind == "official":
        from adam_mini import Adam_mini

        optimizer = Adam_mini(named, dim=D, n_heads=12, verbose=False, **common)
    else:
        optimizer = torch.optim.AdamW([p for _, p in named], **common, **{kind: True})
    for line in sys.stdin:
        name, *count = line.split()
        if name == "quit":
            break
        times = []
        for _ in range(int(count[0]) if count else 1):
            start = time.perf_counter()
            optimizer.step()
            times.append((time.perf_counter() - start) * 1e3)
        state = sum(
            v.numel() * v.element_size()
            for of in optimizer.state.values()
            for v in of.values()
            if torch.is_tensor(v)
        )
        reply = {"ms": statistics.median(times), "peak_bytes": peak_bytes(), "parameters": n, "state_bytes": state}
        print(json.dumps(reply), flush=True)


def sides(given, threads):
    """Name, command, bytes that must be moved per parameter."""
    if given.ours:
        scale = 4 / 256
        ours = [("adam-mini", "f32", 20), ("adamw", "f32", 28)]
        if given.formats:
            ours += [("adam-mini", "bf16", 16), ("adam-mini", "8bit", 12 + 2 * (1 + scale))]
            ours += [("adamw", "bf16", 24), ("adamw", "8bit", 12 + 4 * (1 + scale))]
        for kind, state, moved in ours:
            name = f"rhumb {kind}" + ("" if state == "f32" else f" {state}")
            yield name, [given.ours, json.dumps(SETTINGS | {"kind": kind, "state": state})], moved
    me = [sys.executable, "-B", __file__, "optim", "--threads", str(threads), "--serve"]
    yield "torch AdamW fused", [*me, "fused"], 28
    yield "torch AdamW foreach", [*me, "foreach"], 28
    yield "official adam-mini", [*me, "official"], 20


def compare(given, threads):
    """Alternating pairs of the first side and every other one."""
    started, moved = {}, {}
    try:
        for name, command, size in sides(given, threads):
            started[name], moved[name] = Side(name, command, threads), size
            # The second warm-up sees pages and caches filled by the first.
            started[name].ask("step 1")
            started[name].ask("step 2")
        reference, *others = started
        times = {n: [] for n in started}
        ratios = {n: [] for n in others}
        for i in range(given.pairs):
            for other in others:
                order = [reference, other] if i % 2 == 0 else [other, reference]
                pair = {n: started[n].ask(f"step {given.repeat}") for n in order}
                for n, ms in pair.items():
                    times[n].append(ms)
                ratios[other].append(pair[other] / pair[reference])
        out = {"threads": threads, "pairs": given.pairs, "repeat": given.repeat, "reference": reference, "sides": {}}
        for n, side in started.items():
            ms, parameters = statistics.median(times[n]), side.info["parameters"]
            out["sides"][n] = {
                "ms": ms,
                "ms_min": min(times[n]),
                "ms_max": max(times[n]),
                "gb_per_s": moved[n] * parameters / ms * 1e-6,
                "peak_bytes": side.peak,
                "state_bytes": side.info["state_bytes"],
                "parameters": parameters,
            }
            if n in ratios:
                r = ratios[n]
                out["sides"][n]["ratio"] = {"median": statistics.median(r), "min": min(r), "max": max(r)}
        return out
    finally:
        for side in started.values():
            side.close()


def table(r):
    lines = [
        f"\n{r['threads']} threads, {r['pairs']} alternating pairs of {r['repeat']} steps; ratio = time / time of {r['reference']}",
        "| side | ms (min-max) | GB/s | ratio, median (min-max) | state bytes | peak MB |",
        "|---|---|---|---|---|---|",
    ]
    for name, s in r["sides"].items():
        q = s.get("ratio")
        ratio = f"{q['median']:.2f} ({q['min']:.2f}-{q['max']:.2f})" if q else "1"
        lines.append(
            f"| {name} | {s['ms']:.1f} ({s['ms_min']:.1f}-{s['ms_max']:.1f}) | {s['gb_per_s']:.1f} | {ratio} "
            f"| {s['state_bytes']} | {s['peak_bytes'] / 1e6:.0f} |"
        )
    return "\n".join(lines)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("what", choices=["optim"])
    arguments.add_argument("--ours", metavar="EXE")
    arguments.add_argument("--pairs", type=int, default=7)
    arguments.add_argument("--repeat", type=int, default=5, help="steps inside one measurement")
    arguments.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arguments.add_argument("--formats", action="store_true", help="ours with bf16 and 8bit state too")
    arguments.add_argument("--json", type=Path, metavar="FILE")
    arguments.add_argument("--serve", choices=["fused", "foreach", "official"], help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.serve:
        serve(given.serve, given.threads[0])
        return
    print(f"{cpu_name()}, {os.cpu_count()} logical cores, f32")
    results = []
    for threads in given.threads:
        results.append(compare(given, threads))
        print(table(results[-1]), flush=True)
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
