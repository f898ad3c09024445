# /// script
# requires-python = ">=3.10"
# dependencies = ["torch==2.15.0", "numpy==2.4.6"]
# ///
"""Time and peak memory of language-model training beside PyTorch, in alternating pairs of one run.

    python reference/bench/lm.py lm    [--ours EXE] [--shape d256|smollm2] [--pairs N] [--threads N] [--json FILE]
    python reference/bench/lm.py layer [--ours EXE] [--pairs N] ...

`lm` times a training step (forward, mean cross-entropy, backward, AdamW) at d256 and smollm2, `layer` the gradient of
one decoder layer at the d256 shape and its Hessian-vector product. Without --ours only the peers run.

Shapes, all f32, random ids, SwiGLU, RMSNorm eps 1e-5, RoPE, tied embedding, no biases:
    d128      8 x 128 tokens, d  128,  4 layers, 4 heads, 4 kv heads, ffn  344, vocabulary  2048, theta 1e4 (only when named)
    d256      8 x 256 tokens, d  256,  6 layers, 8 heads, 8 kv heads, ffn  688, vocabulary  8192, theta 1e4
    smollm2   2 x 256 tokens, d  576, 30 layers, 9 heads, 3 kv heads, ffn 1536, vocabulary 49152, theta 1e5
    layer     8 x 256 inputs of d256 into one of its layers; the scalar is <output, G> for a fixed random G

Peers: `eager` (scaled_dot_product_attention, fused AdamW) and `compiled` (the same under torch.compile, its
compilation apart). The Hessian-vector product of the peer is double backward with SDPA's math kernel, since its fused
kernel has no second derivative, and eager only. AdamW: lr 1e-3, betas 0.9 0.95, eps 1e-8, weight decay 0.1, all
parameters decayed.

Line protocol, spoken by `EXE --shape d128|d256|smollm2|layer` as by the peers here (`--serve`): one command a line
on standard input, one JSON line on standard output for each. The process builds its model before it reads.

    step N    N training steps                          (d256, smollm2)
    grad N    N times value and gradient                (every shape; layer: forward + backward incl. d input)
    hvp N     N times a Hessian-vector product alone    (every shape; includes the gradient sweep it needs)
    products N  N times four Hessian-vector products around one linearization (ours, all but `layer`)
    quit      ends the process

    {"ms": median milliseconds of one, "peak_bytes": peak resident bytes of the process so far}
    {"error": "why it cannot"}

N may be missing and is then 1. The optional keys of a reply `parameters` (count), `loss` and `base_bytes` (resident
bytes before the model was built) are shown if present. Threads come by RAYON_NUM_THREADS and OMP_NUM_THREADS.
The first command is a warm-up: its time is reported as start-up and never enters a ratio. Processes that are not
measured are stopped (SIGSTOP) meanwhile. Peak memory is read from the kernel (VmHWM) where it has it, else from replies.
"""

import argparse
import json
import os
import platform
import resource
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

SHAPES = {
    "d128": dict(batch=8, length=128, d=128, layers=4, heads=4, kv=4, ffn=344, vocab=2048, theta=1e4),
    "d256": dict(batch=8, length=256, d=256, layers=6, heads=8, kv=8, ffn=688, vocab=8192, theta=1e4),
    "smollm2": dict(batch=2, length=256, d=576, layers=30, heads=9, kv=3, ffn=1536, vocab=49152, theta=1e5),
}
# The layer has no embedding and no head.
SHAPES["layer"] = SHAPES["d256"] | dict(layers=1, vocab=0)
# Repetitions inside one measurement: about half a second to two seconds each.
REPEAT = {("d256", "step"): 1, ("smollm2", "step"): 1, ("layer", "grad"): 5, ("layer", "hvp"): 2}


def peak_bytes(pid="self"):
    """Peak resident bytes. VmHWM belongs to one address space; ru_maxrss may include the parent's at fork."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    if pid != "self":
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


# ---------------------------------------------------------------- the peers


def decoder(s):
    """The modules of one layer and of a whole decoder of shape `s`."""
    import torch
    import torch.nn.functional as F

    hd = s.d // s.heads
    angle = torch.arange(s.length)[:, None] * s.theta ** (-torch.arange(hd // 2) / (hd // 2))
    cos, sin = torch.cat((angle, angle), -1).cos(), torch.cat((angle, angle), -1).sin()

    def rope(x):
        a, b = x.chunk(2, -1)
        return x * cos + torch.cat((-b, a), -1) * sin

    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            linear = lambda i, o: torch.nn.Linear(i, o, bias=False)  # noqa: E731
            self.norm1, self.norm2 = torch.nn.RMSNorm(s.d, eps=1e-5), torch.nn.RMSNorm(s.d, eps=1e-5)
            self.q, self.k, self.v = linear(s.d, s.heads * hd), linear(s.d, s.kv * hd), linear(s.d, s.kv * hd)
            self.o = linear(s.heads * hd, s.d)
            self.gate, self.up, self.down = linear(s.d, s.ffn), linear(s.d, s.ffn), linear(s.ffn, s.d)

        def forward(self, x):
            y = self.norm1(x)
            q, k, v = (f(y).unflatten(-1, (-1, hd)).transpose(1, 2) for f in (self.q, self.k, self.v))
            y = F.scaled_dot_product_attention(rope(q), rope(k), v, is_causal=True, enable_gqa=s.heads != s.kv)
            x = x + self.o(y.transpose(1, 2).flatten(2))
            y = self.norm2(x)
            return x + self.down(F.silu(self.gate(y)) * self.up(y))

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = torch.nn.Embedding(s.vocab, s.d)
            self.layers = torch.nn.ModuleList(Layer() for _ in range(s.layers))
            self.norm = torch.nn.RMSNorm(s.d, eps=1e-5)

        def scores(self, ids):
            x = self.embed(ids)
            for layer in self.layers:
                x = layer(x)
            return F.linear(self.norm(x), self.embed.weight).view(-1, s.vocab)

        def forward(self, ids, target):
            return F.cross_entropy(self.scores(ids), target.view(-1))

    return Layer, Model


def serve(kind, shape, threads):
    """The PyTorch side of the protocol. Only here is torch imported: the driver stays small."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    base = peak_bytes()
    s = argparse.Namespace(**SHAPES[shape])
    Layer, Model = decoder(s)
    inputs = []
    if shape == "layer":
        model = Layer()
        x = torch.randn(s.batch, s.length, s.d, requires_grad=True)
        weight = torch.randn(s.batch, s.length, s.d)
        inputs = [x]
    else:
        model = Model()
    for p in model.parameters():
        if p.dim() > 1:
            torch.nn.init.normal_(p, std=0.02)
    parameters = list(model.parameters())
    run = torch.compile(model) if kind == "compiled" else model
    if shape == "layer":
        optimizer = None
        value = lambda: (run(x) * weight).sum()  # noqa: E731
        backward = lambda: run(x).backward(weight)  # noqa: E731
    else:
        ids = torch.randint(s.vocab, (s.batch, s.length + 1))
        ids, target = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
        optimizer = torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1, fused=True)
        value = lambda: run(ids, target)  # noqa: E731

        def backward():
            loss = value()
            loss.backward()
            return loss.detach()

    def clear():
        for p in parameters + inputs:
            p.grad = None

    def grad():
        clear()
        return backward()

    def step():
        loss = grad()
        optimizer.step()
        return loss

    def hvp():
        clear()
        leaves = parameters + inputs
        with sdpa_kernel(SDPBackend.MATH):
            grads = torch.autograd.grad(value(), leaves, create_graph=True)
            dot = sum((g * v).sum() for g, v in zip(grads, hvp.direction, strict=True))
            torch.autograd.grad(dot, leaves)

    hvp.direction = [torch.randn_like(p) for p in parameters + inputs] if shape == "layer" else []
    commands = {"grad": grad} | ({"step": step} if optimizer else {})
    if kind == "eager":
        commands["hvp"] = hvp
    for line in sys.stdin:
        name, *count = line.split()
        if name == "quit":
            break
        reply = {"base_bytes": base, "parameters": sum(p.numel() for p in parameters)}
        try:
            if name == "hvp" and not hvp.direction:
                hvp.direction = [torch.randn_like(p) for p in parameters]
            times, loss = [], None
            for _ in range(int(count[0]) if count else 1):
                start = time.perf_counter()
                loss = commands[name]()
                times.append((time.perf_counter() - start) * 1e3)
            reply |= {"ms": statistics.median(times), "peak_bytes": peak_bytes()}
            if loss is not None:
                reply["loss"] = loss.item()
        except KeyError:
            reply = {"error": f"{kind} has no `{name}` at {shape}"}
        except Exception as e:  # noqa: BLE001  (a compiler that is missing must not end the comparison)
            reply = {"error": f"{type(e).__name__}: {str(e).strip().splitlines()[0] if str(e).strip() else ''}"}
        print(json.dumps(reply), flush=True)


# ---------------------------------------------------------------- the driver


class Side:
    """One process that speaks the protocol; stopped whenever it is not measured."""

    def __init__(self, name, command, threads):
        self.name, self.peak, self.info, self.first_s = name, 0, {}, None
        env = os.environ | {
            "RAYON_NUM_THREADS": str(threads),
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
        }
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def ask(self, command):
        """Milliseconds, or None with the reason on stderr."""
        start = time.perf_counter()
        self.process.send_signal(signal.SIGCONT)
        try:
            self.process.stdin.write(command + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise SystemExit(f"{self.name}: ended without an answer to `{command}`")
        reply = json.loads(line)
        self.peak = max(self.peak, peak_bytes(self.process.pid) or reply.get("peak_bytes", 0))
        self.process.send_signal(signal.SIGSTOP)
        if self.first_s is None:
            self.first_s = time.perf_counter() - start
        if "error" in reply:
            print(f"{self.name}: {command}: {reply['error']}", file=sys.stderr)
            return None
        self.info |= reply
        return reply["ms"]

    def close(self):
        self.process.send_signal(signal.SIGCONT)
        try:
            self.process.communicate("quit\n", timeout=20)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self.process.kill()
            self.process.wait()


def compare(shape, command, given):
    """Alternating pairs of one command at one shape. A dictionary for the table."""
    me = [sys.executable, "-B", __file__, "lm", "--shape", shape, "--threads", str(given.threads), "--serve"]
    sides = {}
    if given.ours:
        sides["rhumb"] = Side("rhumb", [given.ours, "--shape", shape], given.threads)
    sides["eager"] = Side("eager", [*me, "eager"], given.threads)
    if command != "hvp" and not given.no_compile:
        sides["compiled"] = Side("compiled", [*me, "compiled"], given.threads)
    try:
        # The second warm-up sees caches filled by the first.
        for name in list(sides):
            if sides[name].ask(f"{command} 1") is None or sides[name].ask(f"{command} 1") is None:
                sides.pop(name).close()
        reference = next(iter(sides))
        peers = [n for n in sides if n != reference]
        count = given.repeat or REPEAT.get((shape, command), 1)
        times = {n: [] for n in sides}
        ratios = {n: [] for n in peers}
        for i in range(given.pairs):
            for peer in peers:
                order = [reference, peer] if i % 2 == 0 else [peer, reference]
                pair = {n: sides[n].ask(f"{command} {count}") for n in order}
                if None in pair.values():
                    raise SystemExit(f"{shape} {command}: a side stopped answering")
                for n, ms in pair.items():
                    times[n].append(ms)
                ratios[peer].append(pair[peer] / pair[reference])
        if not peers:
            times[reference] = [sides[reference].ask(f"{command} {count}") for _ in range(given.pairs)]
        if command != "grad" and shape == "layer":
            for n, side in sides.items():
                side.ask("grad 1")
                side.info["grad_ms"] = side.ask("grad 3")
        tokens = SHAPES[shape]["batch"] * SHAPES[shape]["length"]
        out = {"shape": shape, "command": command, "reference": reference, "pairs": given.pairs, "sides": {}}
        for n, side in sides.items():
            ms = statistics.median(times[n])
            out["sides"][n] = {
                "ms": ms,
                "ms_min": min(times[n]),
                "ms_max": max(times[n]),
                "tokens_per_s": tokens / ms * 1e3,
                "peak_bytes": side.peak,
                "base_bytes": side.info.get("base_bytes"),
                "first_s": side.first_s,
                "parameters": side.info.get("parameters"),
            }
            if "grad_ms" in side.info:
                out["sides"][n]["over_gradient"] = ms / side.info["grad_ms"]
            if n in ratios:
                r = ratios[n]
                out["sides"][n]["ratio"] = {"median": statistics.median(r), "min": min(r), "max": max(r)}
        return out
    finally:
        for side in sides.values():
            side.close()


def table(r):
    mb = lambda b: "-" if b is None else f"{b / 1e6:.0f}"  # noqa: E731
    lines = [
        f"\n{r['shape']}, {r['command']}, {r['pairs']} alternating pairs; ratio = time / time of {r['reference']}",
        "| side | ms (min-max) | tokens/s | ratio, median (min-max) | peak MB | of it before the model | first call s |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, s in r["sides"].items():
        q = s.get("ratio")
        ratio = f"{q['median']:.2f} ({q['min']:.2f}-{q['max']:.2f})" if q else "1"
        lines.append(
            f"| {name} | {s['ms']:.1f} ({s['ms_min']:.1f}-{s['ms_max']:.1f}) | {s['tokens_per_s']:.0f} | {ratio} "
            f"| {mb(s['peak_bytes'])} | {mb(s['base_bytes'])} | {s['first_s']:.1f} |"
        )
    for name, s in r["sides"].items():
        if "over_gradient" in s:
            lines.append(f"{name}: one Hessian-vector product costs {s['over_gradient']:.2f} of its gradients")
    return "\n".join(lines)


def cpu_name():
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("what", choices=["lm", "layer"])
    arguments.add_argument("--ours", metavar="EXE")
    arguments.add_argument("--shape", choices=list(SHAPES), help="only this shape")
    arguments.add_argument("--pairs", type=int, default=7)
    arguments.add_argument("--repeat", type=int, help="repetitions inside one measurement")
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    arguments.add_argument("--json", type=Path, metavar="FILE")
    arguments.add_argument("--serve", choices=["eager", "compiled"], help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.serve:
        serve(given.serve, given.shape, given.threads)
        return
    jobs = [("layer", "grad"), ("layer", "hvp")]
    if given.what == "lm":
        jobs = [(s, "step") for s in ([given.shape] if given.shape else ["d256", "smollm2"])]
    print(f"{cpu_name()}, {os.cpu_count()} logical cores, {given.threads} threads, f32")
    results = []
    for job in jobs:
        results.append(compare(*job, given))
        print(table(results[-1]), flush=True)
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
