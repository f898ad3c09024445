# /// script
# requires-python = ">=3.10"
# dependencies = ["numpy==2.4.6"]
# ///
"""The small network of `gem/toy-diversity` written again, with other random numbers.

    python reference/gem_toy_diversity.py

Writes fixtures/gem/toy-diversity.json: what cross-entropy and gem-linear (beta 0.7) leave of a network, means over three
seeds. A question is 16 normal numbers; four random networks with a common hidden layer name its right answers among 64
classes. First 20,000 questions with any right answer, 40 % of the labels noise; then 1000 of which 70 % have the first
right answer, 20 epochs of batches of 50, a cosine from 2e-3. Gradients are written by hand, everything is float64.
"""

import json
from pathlib import Path

import numpy as np

OUT = Path(__file__).resolve().parent.parent / "fixtures/gem/toy-diversity.json"
INPUTS, CLASSES, HIDDEN, ANSWERS, BETA = 16, 64, 128, 4, 0.7


def log_softmax(z):
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


class Network:
    """tanh(x W + b) V + c with the state of Adam: beta 0.9 and 0.95, eps 1e-8, gradients clipped at norm 1."""

    def __init__(self, params):
        self.params = [p.copy() for p in params]
        self.first = [np.zeros_like(p) for p in params]
        self.second = [np.zeros_like(p) for p in params]
        self.steps = 0

    @classmethod
    def drawn(cls, rng):
        hidden = rng.normal(size=(INPUTS, HIDDEN)) * 1.5 / INPUTS**0.5
        out = rng.normal(size=(HIDDEN, CLASSES)) / HIDDEN**0.5
        return cls([hidden, np.zeros(HIDDEN), out, np.zeros(CLASSES)])

    def scores(self, x):
        w, b, v, c = self.params
        return np.tanh(x @ w + b) @ v + c

    def step(self, x, labels, beta, lr):
        """One step on the cross-entropy (`beta` None) or on gem-linear, whose gradient is q - 1_y."""
        w, b, v, c = self.params
        h = np.tanh(x @ w + b)
        g = np.exp(log_softmax((h @ v + c) / (beta or 1.0)))
        g[np.arange(len(labels)), labels] -= 1.0
        g /= len(labels)
        dh = (g @ v.T) * (1.0 - h * h)
        grads = [x.T @ dh, dh.sum(0), h.T @ g, g.sum(0)]
        norm = np.sqrt(sum((d * d).sum() for d in grads))
        self.steps += 1
        for p, m, s, d in zip(self.params, self.first, self.second, grads):
            d = d * min(1.0, 1.0 / (norm + 1e-6))
            m += 0.1 * (d - m)
            s += 0.05 * (d * d - s)
            p -= lr * (m / (1 - 0.9**self.steps)) / (np.sqrt(s / (1 - 0.95**self.steps)) + 1e-8)

    def train(self, rng, x, labels, beta, lr, epochs, batch):
        total = epochs * -(-len(x) // batch)
        for _ in range(epochs):
            order = rng.permutation(len(x))
            for i in range(0, len(x), batch):
                at = order[i : i + batch]
                self.step(x[at], labels[at], beta, lr(self.steps / total))


def study(seed):
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(INPUTS, 64)) * 1.5 / INPUTS**0.5
    heads = [rng.normal(size=(64, CLASSES)) for _ in range(ANSWERS)]

    def answers(x):
        h = np.tanh(x @ common)
        return np.stack([(h @ head).argmax(-1) for head in heads], 1)

    def styled(right):
        first = rng.random(len(right)) < 0.7
        return right[np.arange(len(right)), np.where(first, 0, rng.integers(1, ANSWERS, len(right)))]

    def noisy(right):
        any_right = right[np.arange(len(right)), rng.integers(0, ANSWERS, len(right))]
        return np.where(rng.random(len(right)) < 0.6, any_right, rng.integers(0, CLASSES, len(right)))

    before_x = rng.normal(size=(20_000, INPUTS))
    before_y = noisy(answers(before_x))
    start = Network.drawn(rng)
    start.train(rng, before_x, before_y, None, lambda t: 3e-3 * (1.0 - t), 15, 200)

    tune_x = rng.normal(size=(1000, INPUTS))
    tune_y = styled(answers(tune_x))
    test_x = rng.normal(size=(1000, INPUTS))
    right = answers(test_x)
    test_y = styled(right)
    in_mind = right[np.arange(1000), rng.integers(0, ANSWERS, 1000)]
    again_y = noisy(answers(before_x[:4000]))

    def measured(network):
        log_p = log_softmax(network.scores(test_x))
        p = np.exp(log_p)
        one = np.arange(len(test_x))
        chance = p[one, in_mind]
        before = log_softmax(network.scores(before_x[:4000]))
        out = {
            "entropy": -(p * log_p).sum(-1).mean(),
            "test_ce": -log_p[one, test_y].mean(),
            "before_ce": -before[np.arange(4000), again_y].mean(),
        }
        return out | {f"pass@{k}": (1 - (1 - chance) ** k).mean() for k in (1, 4, 16, 64)}

    def tuned(beta):
        network = Network(start.params)
        cosine = lambda t: 2e-3 * 0.5 * (1.0 + np.cos(np.pi * t))  # noqa: E731
        network.train(np.random.default_rng(seed + 99), tune_x, tune_y, beta, cosine, 20, 50)
        return measured(network)

    return {"ce": tuned(None), "gem-linear": tuned(BETA)}


def main():
    seeds = [study(seed) for seed in range(3)]
    means = {
        arm: {name: float(np.mean([s[arm][name] for s in seeds])) for name in seeds[0][arm]} for arm in seeds[0]
    }
    OUT.write_text(json.dumps({"numpy": np.__version__, "means": means}, indent=1) + "\n")
    for name, ce in means["ce"].items():
        print(f"{name:10} ce {ce:7.4f}  gem-linear {means['gem-linear'][name]:7.4f}  difference {means['gem-linear'][name] - ce:+.4f}")


if __name__ == "__main__":
    main()
