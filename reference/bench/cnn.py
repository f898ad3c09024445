# /// script
# requires-python = ">=3.10"
# dependencies = ["torch==2.15.0", "numpy==2.4.6"]
# ///
"""Time and peak memory of training steps of image nets beside PyTorch, in alternating pairs of one run.

    python reference/bench/cnn.py cnn [--ours EXE] [--net NAME...] [--pairs N] [--repeat N] [--threads N] [--compile] [--json FILE]

One step: forward, mean cross-entropy, backward, AdamW (lr 1e-3, betas 0.9 0.999, eps 1e-8, no decay). 64 random images, f32:

    lenet     1 x 28 x 28, LeNet with ReLU, 61 706 parameters
    block     64 x 16 x 16: a convolution of 3 x 3, one pre-activation residual block of 64 channels, norm, ReLU, mean of
              the planes, linear
    resnet18  3 x 32 x 32, the pre-activation ResNet-18 of CIFAR (only when named)

Peers: `eager`, with fused AdamW and the NCHW layout; `compiled` with --compile.

Line protocol, spoken by `EXE NET` as by the peers here (`--serve`): `step N`, `grad N` or `forward N` on standard input is
answered by {"ms": median milliseconds of one, "peak_bytes": ..., "loss": ...} or {"error": ...}; `quit` ends the process.
The first commands are warm-ups. Processes that are not measured are stopped (SIGSTOP) meanwhile.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

from lm import Side, cpu_name, peak_bytes

ROWS = 64
NETS = {"lenet": (1, 28), "block": (64, 16), "resnet18": (3, 32)}
REPEAT = {"lenet": 100, "block": 5, "resnet18": 1}


def serve(kind, net, threads):
    """The PyTorch side of the protocol. Only here is torch imported: the driver stays small."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    base = peak_bytes()

    class Block(nn.Module):
        def __init__(self, inp, out, step):
            super().__init__()
            conv = lambda i, o, k, s: nn.Conv2d(i, o, k, s, k // 2, bias=False)  # noqa: E731
            self.bn1, self.bn2 = nn.BatchNorm2d(inp), nn.BatchNorm2d(out)
            self.conv1, self.conv2 = conv(inp, out, 3, step), conv(out, out, 3, 1)
            self.short = None if step == 1 and inp == out else conv(inp, out, 1, step)

        def forward(self, x):
            h = F.relu(self.bn1(x))
            short = x if self.short is None else self.short(h)
            return self.conv2(F.relu(self.bn2(self.conv1(h)))) + short

    def resnet(inp, blocks):
        layers, width = [nn.Conv2d(inp, 64, 3, 1, 1, bias=False)], 64
        for stage, count in enumerate(blocks):
            for i in range(count):
                out = 64 << stage
                layers.append(Block(width, out, 2 if stage and not i else 1))
                width = out
        return nn.Sequential(
            *layers, nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)
        )

    lenet = lambda: nn.Sequential(  # noqa: E731
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )
    model = {"lenet": lenet, "block": lambda: resnet(64, [1]), "resnet18": lambda: resnet(3, [2] * 4)}[net]()
    channels, side = NETS[net]
    x, y = torch.randn(ROWS, channels, side, side), torch.randint(10, (ROWS,))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, fused=True)
    run = torch.compile(model) if kind == "compiled" else model

    def forward():
        with torch.no_grad():
            return F.cross_entropy(run(x), y)

    def grad():
        optimizer.zero_grad()
        loss = F.cross_entropy(run(x), y)
        loss.backward()
        return loss.detach()

    def step():
        loss = grad()
        optimizer.step()
        return loss

    commands = {"step": step, "grad": grad, "forward": forward}
    for line in sys.stdin:
        name, *count = line.split()
        if name == "quit":
            break
        try:
            times = []
            for _ in range(int(count[0]) if count else 1):
                start = time.perf_counter()
                loss = commands[name]()
                times.append((time.perf_counter() - start) * 1e3)
            reply = {"ms": statistics.median(times), "peak_bytes": peak_bytes(), "base_bytes": base, "loss": loss.item()}
            reply["parameters"] = sum(p.numel() for p in model.parameters())
        except Exception as e:  # noqa: BLE001  (a compiler that is missing must not end the comparison)
            reply = {"error": f"{type(e).__name__}: {str(e).strip().splitlines()[0] if str(e).strip() else ''}"}
        print(json.dumps(reply), flush=True)


def compare(given, net):
    me = [sys.executable, "-B", __file__, "cnn", "--net", net, "--threads", str(given.threads), "--serve"]
    sides = {"rhumb": [given.ours, net]} if given.ours else {}
    sides |= {"eager": [*me, "eager"]} | ({"compiled": [*me, "compiled"]} if given.compile else {})
    started = {}
    try:
        for name, command in sides.items():
            side = Side(name, command, given.threads)
            # The second warm-up sees pages and caches filled by the first.
            if side.ask("step 3") is None or side.ask("step 3") is None:
                side.close()
            else:
                started[name] = side
        counts = {s.info["parameters"] for s in started.values()}
        if len(counts) > 1:
            raise SystemExit(f"{net}: the sides have different numbers of parameters: {counts}")
        reference, *others = started
        count = given.repeat or REPEAT[net]
        times, ratios = {n: [] for n in started}, {n: [] for n in others}
        for i in range(given.pairs):
            for other in others:
                order = [reference, other] if i % 2 == 0 else [other, reference]
                pair = {n: started[n].ask(f"step {count}") for n in order}
                for n, ms in pair.items():
                    times[n].append(ms)
                ratios[other].append(pair[other] / pair[reference])
        out = {"net": net, "pairs": given.pairs, "parameters": counts.pop(), "reference": reference, "sides": {}}
        for n, side in started.items():
            peak, t = side.peak, times[n] or [side.info["ms"]]
            out["sides"][n] = {"ms": statistics.median(t), "ms_min": min(t), "ms_max": max(t), "peak_bytes": peak}
            out["sides"][n]["base_bytes"] = side.info.get("base_bytes")
            if n in ratios:
                r = ratios[n]
                out["sides"][n]["ratio"] = {"median": statistics.median(r), "min": min(r), "max": max(r)}
        return out
    finally:
        for side in started.values():
            side.close()


def table(r):
    head = f"\n{r['net']}, {r['parameters']} parameters, {ROWS} images, {r['pairs']} alternating pairs"
    lines = [
        f"{head}; ratio = time / time of {r['reference']}",
        "| side | ms (min-max) | images/s | ratio, median (min-max) | peak MB | of it before the model |",
        "|---|---|---|---|---|---|",
    ]
    for name, s in r["sides"].items():
        q = s.get("ratio")
        ratio = f"{q['median']:.2f} ({q['min']:.2f}-{q['max']:.2f})" if q else "1"
        base = "-" if s["base_bytes"] is None else f"{s['base_bytes'] / 1e6:.0f}"
        lines.append(
            f"| {name} | {s['ms']:.2f} ({s['ms_min']:.2f}-{s['ms_max']:.2f}) | {ROWS / s['ms'] * 1e3:.0f} | {ratio} "
            f"| {s['peak_bytes'] / 1e6:.0f} | {base} |"
        )
    return "\n".join(lines)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("what", choices=["cnn"])
    arguments.add_argument("--ours", metavar="EXE")
    arguments.add_argument("--net", nargs="+", choices=list(NETS), default=["lenet", "block"])
    arguments.add_argument("--pairs", type=int, default=7)
    arguments.add_argument("--repeat", type=int, help="steps inside one measurement")
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--compile", action="store_true", help="torch.compile as well")
    arguments.add_argument("--json", type=Path, metavar="FILE")
    arguments.add_argument("--serve", choices=["eager", "compiled"], help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.serve:
        serve(given.serve, given.net[0], given.threads)
        return
    print(f"{cpu_name()}, {os.cpu_count()} logical cores, {given.threads} threads, f32")
    results = []
    for net in given.net:
        results.append(compare(given, net))
        print(table(results[-1]), flush=True)
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
