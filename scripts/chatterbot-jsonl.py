#!/usr/bin/env python3
"""Turns the YAML conversations of chatterbot-corpus into chat messages, one conversation a line.

    scripts/chatterbot-jsonl.py DIR [--out FILE]      DIR = .../chatterbot_corpus/data/english

Turns alternate between user and assistant; a last turn of the user that nobody answers is dropped, and so
is a conversation without any answer. Files in the order of their names, conversations in the order of the
file: the same input always gives the same bytes. Needs the standard library only, so it reads just the part of YAML
that the corpus uses (lists of lists of plain, quoted and block scalars) and refuses the rest with the line.
"""

import argparse
import json
import re
import sys
from pathlib import Path

ESCAPES = {"n": "\n", "t": "\t", '"': '"', "\\": "\\", "/": "/", " ": " ", "0": "\0", "r": "\r"}


class Broken(Exception):
    pass


def unquote(text, where):
    """A scalar written in one piece: 'single', "double" or plain."""
    if text[0] == "'":
        if len(text) < 2 or text[-1] != "'":
            raise Broken(f"{where}: the single quote is never closed")
        return text[1:-1].replace("''", "'")
    if text[0] == '"':
        if len(text) < 2 or text[-1] != '"':
            raise Broken(f"{where}: the double quote is never closed")

        def escape(m):
            if m[1][0] in "xuU":
                return chr(int(m[1][1:], 16))
            if m[1] not in ESCAPES:
                raise Broken(f"{where}: unknown escape \\{m[1]}")
            return ESCAPES[m[1]]

        return re.sub(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", escape, text[1:-1])
    return re.sub(r"\s+#.*", "", text)


def fold(lines):
    """Line folding of plain and quoted scalars: a line break is a space, n blank lines are n breaks."""
    text, blanks = lines[0].strip(), 0
    for line in lines[1:]:
        if not line.strip():
            blanks += 1
            continue
        text += ("\n" * blanks if blanks else " ") + line.strip()
        blanks = 0
    return text


def block(header, lines, where):
    """A literal scalar after `|`, `|-` or `|+`."""
    if header not in ("|", "|-", "|+"):
        raise Broken(f"{where}: block scalar {header!r} is not supported")
    filled = [len(s) - len(s.lstrip()) for s in lines if s.strip()]
    cut = min(filled, default=0)
    text = "\n".join(s[cut:] if s.strip() else "" for s in lines)
    if header == "|-":
        return text.rstrip("\n")
    return text + "\n" if header == "|+" else text.rstrip("\n") + "\n"


def conversations(path):
    """The list of conversations (each a list of texts) under `conversations:`."""
    out, section, base = [], None, None
    lines = path.read_text(encoding="utf-8").splitlines()
    i = 0
    while i < len(lines):
        line, where = lines[i], f"{path.name}:{i + 1}"
        i += 1
        if not line.strip() or line.lstrip().startswith("#") or line.strip() in ("---", "..."):
            continue
        if key := re.fullmatch(r"(\w+):\s*", line):
            section = key[1]
            continue
        if section != "conversations":
            continue
        item = re.match(r"(\s*)(- +)?- +(?=\S)", line)
        if not item:
            raise Broken(f"{where}: expected `- - text` or `  - text`, found {line!r}")
        if base is None:
            base = len(item[1])
        # trivia.yml has one question with a dash missing; its indentation still tells what was meant.
        opens = bool(item[2]) or len(item[1]) == base
        depth = base + 2 if opens else len(item[1])
        first = line[item.end() :].rstrip()
        rest = []
        while i < len(lines):
            s = lines[i]
            deeper = len(s) - len(s.lstrip()) > depth
            if s.strip() and not deeper:
                break
            rest.append(s)
            i += 1
        if first[0] in "|>":
            text = block(first, rest, where)
        else:
            text = unquote(fold([first, *rest]), where)
        if opens:
            out.append([text])
        elif out:
            out[-1].append(text)
        else:
            raise Broken(f"{where}: an answer before any question")
    return out


def messages(turns):
    turns = [t.strip() for t in turns]
    turns = turns[: len(turns) - len(turns) % 2]
    if not turns or not all(turns):
        return None
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[i % 2], "content": t} for i, t in enumerate(turns)]}


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("dir", type=Path)
    arguments.add_argument("--out", type=Path, help="default: standard output")
    given = arguments.parse_args()
    files = sorted(given.dir.glob("*.yml"), key=lambda p: p.name)
    if not files:
        raise SystemExit(f"{given.dir}: no *.yml files; give the folder data/english of chatterbot-corpus")
    try:
        rows = [m for f in files for turns in conversations(f) if (m := messages(turns))]
    except Broken as e:
        raise SystemExit(str(e)) from None
    text = "".join(json.dumps(m, ensure_ascii=False) + "\n" for m in rows)
    if given.out:
        given.out.write_text(text, encoding="utf-8")
        print(f"{len(rows)} conversations from {len(files)} files", file=sys.stderr)
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
