# /// script
# requires-python = ">=3.10"
# dependencies = ["torch==2.15.0", "transformers==5.24.0", "peft==0.21.2", "safetensors==0.8.0", "numpy==2.4.6"]
# ///
"""Adapters that the PEFT package wrote, and the scores that it computes with them.

    cargo xtask fixtures adapter

For a small random Llama and GPT-2 each: the model's folder, the adapter's folder as `save_pretrained` leaves it, and
`scores.json` with token numbers, the scores of the model alone and those with the adapter. The Llama's adapter is
rank-stabilised (scale alpha / sqrt(r)), the GPT-2's is not (alpha / r).
"""

import json
import shutil
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

OUT = Path(__file__).resolve().parent.parent / "fixtures/adapter"
IDS = [[3, 1, 4, 1, 5, 9, 2, 6]]


def models():
    llama = LlamaConfig(
        vocab_size=20, hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=16, tie_word_embeddings=True, initializer_range=0.5,
    )  # fmt: skip
    lora = LoraConfig(
        r=3, lora_alpha=5, use_rslora=True, target_modules=["q_proj", "down_proj"], init_lora_weights=False,
        task_type="CAUSAL_LM",
    )  # fmt: skip
    yield "llama", LlamaForCausalLM(llama), lora
    gpt2 = GPT2Config(vocab_size=20, n_embd=8, n_layer=2, n_head=2, n_positions=16, initializer_range=0.5)
    lora = LoraConfig(
        r=2, lora_alpha=3, target_modules=["c_attn", "c_fc"], init_lora_weights=False, task_type="CAUSAL_LM",
        fan_in_fan_out=True,
    )  # fmt: skip
    yield "gpt2", GPT2LMHeadModel(gpt2), lora


def scores(model):
    with torch.no_grad():
        return model(torch.tensor(IDS)).logits[0].double().flatten().tolist()


def main():
    torch.manual_seed(0)
    for name, model, lora in models():
        folder = OUT / name
        shutil.rmtree(folder, ignore_errors=True)
        model.eval().save_pretrained(folder / "model")
        alone = scores(model)
        adapted = get_peft_model(model, lora).eval()
        with_adapter = scores(adapted)
        adapted.save_pretrained(folder / "adapter")
        for needless in [folder / "adapter/README.md", folder / "model/generation_config.json"]:
            needless.unlink(missing_ok=True)
        values = {"ids": IDS[0], "alone": alone, "adapted": with_adapter}
        (folder / "scores.json").write_text(json.dumps(values) + "\n")


if __name__ == "__main__":
    main()
