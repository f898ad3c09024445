# /// script
# requires-python = ">=3.10"
# dependencies = ["torch==2.15.0", "transformers==5.24.0", "safetensors==0.8.0", "tokenizers==0.23.2", "numpy==2.4.6"]
# ///
"""Reference values of the sentence encoder, by the BERT of the transformers package.

    python reference/encoder.py                 # a small random encoder
    python reference/encoder.py --minilm DIR    # all-MiniLM-L6-v2 in DIR (config.json, model.safetensors, tokenizer.json)

Writes fixtures/encoder/<case>.json: token numbers of texts of different length, and their embeddings: the mean of
the last hidden states over the tokens of a text, divided by its length. Weights of the small encoder come from
SplitMix64 streams named by tensor, (2u - 1) * 0.3, norm weights 1 + (2u - 1) * 0.3; both sides make them.
"""

import argparse
import json
from pathlib import Path

import torch
from decoder import below, uniform
from transformers import BertConfig, BertModel

ROOT = Path(__file__).resolve().parent.parent
SEED = 20261127
SMALL = {
    "model_type": "bert", "vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3,
    "intermediate_size": 40, "max_position_embeddings": 16, "layer_norm_eps": 1e-12, "hidden_act": "gelu",
    "type_vocab_size": 2,
}
SENTENCES = [
    "A cat sleeps on the warm windowsill.",
    "A kitten is napping in the sun by the window.",
    "The committee postponed its decision until Thursday.",
    "Two plus two equals four.",
    "What time does the last train leave?",
    "Le chat dort sur le canapé.",
    "def add(a, b): return a + b",
    "Rain.",
    "It rained all night, and by morning the river had risen above the old stone bridge.",
    "I can't believe she's won the marathon twice!",
    "naïve café — fiancé",
    "Email me at someone@example.org before 5 p.m.",
    "The quick brown fox jumps over the lazy dog.",
    "THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG",
    "Photosynthesis converts light into chemical energy.",
    "3.14159 is close to pi; 2.71828 is close to e.",
    "She sells sea shells by the sea shore, and the shells she sells are surely seashells.",
    "东京 is the capital of Japan",
    "No.",
    "Antidisestablishmentarianism is a long word that word pieces cut into many parts.",
]


def embed(model, texts):
    out = []
    for ids in texts:
        with torch.no_grad():
            hidden = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
        mean = hidden.mean(0)
        out.append((mean / mean.norm()).tolist())
    return out


def small():
    model = BertModel(BertConfig(**SMALL), add_pooling_layer=False).double().eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            base = 1.0 if name.endswith("LayerNorm.weight") else 0.0
            values = base + (2 * uniform(SEED, name, p.numel()) - 1) * 0.3
            p.copy_(torch.from_numpy(values).view(p.shape))
    lengths = [1, 5, 16, 5, 9]
    texts = [below(SEED, f"text/{i}", n, SMALL["vocab_size"]) for i, n in enumerate(lengths)]
    return {"config": SMALL, "seed": SEED, "texts": texts, "embeddings": embed(model, texts)}


def minilm(folder):
    from safetensors.torch import load_file
    from tokenizers import Tokenizer

    config = json.loads((folder / "config.json").read_text())
    model = BertModel(BertConfig(**config)).eval()
    wrong = model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    assert not [k for k in wrong.missing_keys if "position_ids" not in k], wrong
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    texts = [tokenizer.encode(s).ids for s in SENTENCES]
    rounded = [[round(v, 8) for v in e] for e in embed(model, texts)]
    return {"sentences": SENTENCES, "texts": texts, "embeddings": rounded}


if __name__ == "__main__":
    args = argparse.ArgumentParser()
    args.add_argument("--minilm", type=Path)
    args = args.parse_args()
    name, case = ("all-minilm-l6-v2", minilm(args.minilm)) if args.minilm else ("small", small())
    path = ROOT / "fixtures/encoder" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    text = json.dumps(case, ensure_ascii=False, separators=(",", ":"))
    path.write_text(text.replace('],[', '],\n[') + "\n")
    print(path, path.stat().st_size)
