# /// script
# requires-python = ">=3.10"
# dependencies = ["torch==2.15.0", "transformers==5.24.0", "numpy==2.4.6"]
# ///
"""Reference values of image classifiers and of a masked language model, by eager PyTorch and its autograd.

    python reference/vision.py             # every case
    python reference/vision.py CASE...     # some

Writes fixtures/hessian/vision-<case>.json. Only outputs are stored: inputs come from the SplitMix64 streams of
reference/decoder.py, which both sides make. With u = uniform in [0, 1), row-major, one stream per tensor name:
  tensors of two and more dimensions  (2u - 1) sqrt(3 / product of all dimensions but the first)
  other weights (of norms)            1 + (2u - 1) * 0.1
  biases                              (2u - 1) * 0.05
  running means and variances         (2u - 1) * 0.2 and 0.5 + u
  images                              stream "images", 2u - 1
  labels                              stream "labels", below(classes)
  token ids and labels                streams "tokens" and "labels", below(vocab); stream "hidden", u < 0.3 keeps a label
  direction of the HVP                stream "v/" + name, 2u - 1
  sampled entries                     stream "sample/" + name, 16 draws of below(numel)

`F.cross_entropy` with its mean. Classifiers: `loss`, `outputs`, `gradient`, `hvp`, and `losses` before each of five
AdamW steps (settings of reference/decoder.py) on that batch. Nets with batch norms once with the statistics of the batch
and once with the running ones; with the former also `running`, the running statistics after one forward pass. The case
`ops` is a chain of operations that the nets do not have, under half the sum of squares. `bert-masked` is
`BertForMaskedLM` without segments and without the bias of its scores. All in f64.
"""

import json
import math
import platform
import sys

import numpy as np
import torch
import torch.nn.functional as F
from decoder import ADAMW, ROOT, SEED, below, uniform

SAMPLES = 16
ROWS = 5
STEPS = 5
RESNET = {"kind": "preact-resnet", "width": 4, "blocks": [1, 2, 1]}
VIT = {"kind": "vit", "patch": 2, "width": 12, "layers": 2, "heads": 3, "ffn": 20}
# Image, classes, net, statistics.
CASES = {
    "lenet-relu": ([1, 12, 12], 4, {"kind": "lenet", "activation": "relu"}, "batch"),
    "lenet-tanh": ([2, 13, 12], 3, {"kind": "lenet", "activation": "tanh"}, "batch"),
    "cnn": ([3, 8, 9], 5, {"kind": "cnn", "widths": [4, 6, 8]}, "batch"),
    "resnet-batch": ([3, 8, 6], 4, RESNET, "batch"),
    "resnet-running": ([3, 8, 6], 4, RESNET, "running"),
    "vit-class": ([3, 6, 4], 4, VIT | {"class_token": True}, "batch"),
    "vit-mean": ([2, 4, 6], 3, VIT | {"class_token": False}, "batch"),
}
BERT = {
    "model_type": "bert", "vocab_size": 31, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3,
    "intermediate_size": 20, "max_position_embeddings": 9, "layer_norm_eps": 1e-12, "hidden_act": "gelu",
}


def tensor(name, values, shape):
    return torch.from_numpy(np.ascontiguousarray(values)).reshape(shape)


def signed(name, shape):
    return tensor(name, 2.0 * uniform(SEED, name, int(np.prod(shape))) - 1.0, shape)


def initial(name, shape):
    if name.endswith("running_mean"):
        return signed(name, shape) * 0.2
    if name.endswith("running_var"):
        return tensor(name, uniform(SEED, name, int(np.prod(shape))) + 0.5, shape)
    if len(shape) > 1:
        return signed(name, shape) * math.sqrt(3.0 / math.prod(shape[1:]))
    return signed(name, shape) * 0.05 if name.endswith("bias") else 1.0 + signed(name, shape) * 0.1


def summary(name, x):
    flat = x.detach().flatten()
    at = torch.tensor(below(SEED, "sample/" + name, SAMPLES, flat.numel()))
    return {
        "samples": flat[at].tolist(),
        "l2": flat.norm().item(),
        "sum": flat.sum().item(),
        "max_abs": flat.abs().max().item(),
    }


class Params(dict):
    """Tensors made where the net first asks for them, in its order."""

    def __init__(self):
        super().__init__()
        self.buffers = {}

    def get(self, name, *shape):
        if name not in self:
            self[name] = initial(name, shape).requires_grad_()
        return self[name]

    def buffer(self, name, n):
        if name not in self.buffers:
            self.buffers[name] = initial(name, (n,))
        return self.buffers[name]


def conv(p, name, x, out, kernel, stride=1, padding=0, bias=True):
    w = p.get(name + ".weight", out, x.shape[1], kernel, kernel)
    return F.conv2d(x, w, p.get(name + ".bias", out) if bias else None, stride, padding)


def linear(p, name, x, out):
    return F.linear(x, p.get(name + ".weight", out, x.shape[-1]), p.get(name + ".bias", out))


def batch_norm(p, name, x, training):
    n = x.shape[1]
    w, b = p.get(name + ".weight", n), p.get(name + ".bias", n)
    mean, var = p.buffer(name + ".running_mean", n), p.buffer(name + ".running_var", n)
    return F.batch_norm(x, mean, var, w, b, training, 0.1, 1e-5)


def layer_norm(p, name, x):
    n = x.shape[-1]
    return F.layer_norm(x, (n,), p.get(name + ".weight", n), p.get(name + ".bias", n), 1e-6)


def lenet(p, c, classes, x, training):
    act = {"relu": F.relu, "tanh": torch.tanh}[c["activation"]]
    x = F.max_pool2d(act(conv(p, "conv1", x, 6, 5, padding=2)), 2)
    x = F.max_pool2d(act(conv(p, "conv2", x, 16, 5)), 2)
    x = act(linear(p, "fc1", x.flatten(1), 120))
    return linear(p, "fc3", act(linear(p, "fc2", x, 84)), classes)


def cnn(p, c, classes, x, training):
    for i, width in enumerate(c["widths"]):
        x = F.max_pool2d(F.relu(conv(p, f"conv{i + 1}", x, width, 3, padding=1)), 2)
    return linear(p, "fc", x.flatten(1), classes)


def preact_resnet(p, c, classes, x, training):
    x = conv(p, "conv1", x, c["width"], 3, padding=1, bias=False)
    for stage, count in enumerate(c["blocks"]):
        out = c["width"] << stage
        for i in range(count):
            name, step = f"layer{stage + 1}.{i}", 2 if stage and not i else 1
            h = F.relu(batch_norm(p, name + ".bn1", x, training))
            short = x
            if step > 1 or x.shape[1] != out:
                short = conv(p, name + ".downsample.0", h, out, 1, step, bias=False)
            h = conv(p, name + ".conv1", h, out, 3, step, 1, bias=False)
            h = F.relu(batch_norm(p, name + ".bn2", h, training))
            x = conv(p, name + ".conv2", h, out, 3, padding=1, bias=False) + short
    x = F.relu(batch_norm(p, "bn", x, training))
    return linear(p, "fc", F.adaptive_avg_pool2d(x, 1).flatten(1), classes)


def vit(p, c, classes, x, training):
    width, heads = c["width"], c["heads"]
    x = conv(p, "patch_embed.proj", x, width, c["patch"], c["patch"]).flatten(2).transpose(1, 2)
    if c["class_token"]:
        x = torch.cat((p.get("cls_token", 1, 1, width).expand(x.shape[0], -1, -1), x), 1)
    x = x + p.get("pos_embed", 1, x.shape[1], width)
    for i in range(c["layers"]):
        b = f"blocks.{i}."
        qkv = linear(p, b + "attn.qkv", layer_norm(p, b + "norm1", x), 3 * width)
        q, k, v = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        a = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(width // heads), -1) @ v
        x = x + linear(p, b + "attn.proj", a.transpose(1, 2).flatten(2), width)
        h = F.gelu(linear(p, b + "mlp.fc1", layer_norm(p, b + "norm2", x), c["ffn"]))
        x = x + linear(p, b + "mlp.fc2", h, width)
    x = layer_norm(p, "norm", x)
    return linear(p, "head", x[:, 0] if c["class_token"] else x.mean(1), classes)


NETS = {"lenet": lenet, "cnn": cnn, "preact-resnet": preact_resnet, "vit": vit}


def derivatives(loss, named):
    """Gradient and Hessian-vector product, summarised."""
    grads = torch.autograd.grad(loss, named.values(), create_graph=True)
    dot = sum((g * signed("v/" + n, g.shape)).sum() for n, g in zip(named, grads, strict=True))
    product = torch.autograd.grad(dot, named.values(), allow_unused=True, materialize_grads=True)
    pack = lambda tensors: {n: summary(n, t) for n, t in zip(named, tensors, strict=True)}  # noqa: E731
    return {"loss": loss.item(), "gradient": pack(grads), "hvp": pack(product)}


def classifier(image, classes, net, statistics):
    x, y = signed("images", (ROWS, *image)), torch.tensor(below(SEED, "labels", ROWS, classes))
    p = Params()
    outputs = lambda: NETS[net["kind"]](p, net, classes, x, statistics == "batch")  # noqa: E731
    value = outputs()
    out = {
        "config": {"image": image, "classes": classes, "net": net},
        "statistics": statistics,
        "rows": ROWS,
        "outputs": value.flatten().tolist(),
    }
    if p.buffers and statistics == "batch":
        out["running"] = {n: b.tolist() for n, b in p.buffers.items()}
    out |= derivatives(F.cross_entropy(value, y), p)
    settings = {"betas": tuple(ADAMW["betas"]), "eps": ADAMW["eps"], "weight_decay": ADAMW["weight_decay"]}
    optimizer = torch.optim.AdamW(p.values(), lr=ADAMW["lr"], **settings)
    out["losses"] = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = F.cross_entropy(outputs(), y)
        loss.backward()
        optimizer.step()
        out["losses"].append(loss.item())
    return out


def ops():
    """Uneven windows, groups and overlapping pools; every input is differentiated."""
    p = Params()
    x = p.get("x", 3, 4, 9, 8)
    x = F.conv2d(x, p.get("conv.weight", 6, 2, 3, 2), p.get("conv.bias", 6), (2, 1), (1, 0), groups=2)
    x = torch.tanh(batch_norm(p, "bn", x, True))
    x = F.conv2d(x, p.get("point.weight", 5, 6, 1, 1), stride=1)
    x = F.max_pool2d(x, 3, 2, 1)
    x = F.avg_pool2d(x, 2, 1, 1)
    return derivatives(0.5 * (x * x).sum(), p)


def bert_masked():
    from transformers import BertConfig, BertForMaskedLM

    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = BertForMaskedLM(BertConfig(**BERT, **off, type_vocab_size=1, attn_implementation="eager")).double()
    zero = ("bert.embeddings.token_type_embeddings.weight", "cls.predictions.bias")
    named = {}
    with torch.no_grad():
        for name, p in model.named_parameters():
            short = name.removeprefix("bert.")
            p.copy_(torch.zeros_like(p) if name in zero else initial(short, p.shape))
            if name not in zero:
                named[short] = p
    rows, length, vocab = 3, 7, BERT["vocab_size"]
    ids = torch.tensor(below(SEED, "tokens", rows * length, vocab)).view(rows, length)
    labels = torch.tensor(below(SEED, "labels", rows * length, vocab))
    labels[torch.from_numpy(uniform(SEED, "hidden", rows * length) >= 0.3)] = -100
    loss = F.cross_entropy(model(input_ids=ids).logits.view(-1, vocab), labels)
    return {"config": BERT, "rows": rows, "length": length} | derivatives(loss, named)


def write(case, data):
    import transformers

    head = {
        "generator": "reference/vision.py",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "numpy": np.__version__,
        },
        "seed": SEED,
    }
    lines = []
    for key, value in (head | data).items():
        if key in ("gradient", "hvp", "running"):
            rows = ",\n".join(f"  {json.dumps(n)}: {json.dumps(v)}" for n, v in value.items())
            lines.append(f" {json.dumps(key)}: {{\n{rows}\n }}")
        else:
            lines.append(f" {json.dumps(key)}: {json.dumps(value)}")
    path = ROOT / "fixtures" / "hessian" / f"vision-{case}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{case}: loss {data['loss']:.12f}, {path.stat().st_size / 1024:.1f} kB")


def main():
    torch.set_num_threads(1)
    chosen = sys.argv[1:] or [*CASES, "ops", "bert-masked"]
    for case in chosen:
        if case == "ops":
            write(case, ops())
        elif case == "bert-masked":
            write(case, bert_masked())
        else:
            write(case, classifier(*CASES[case]))


if __name__ == "__main__":
    main()
