# /// script
# requires-python = ">=3.10"
# dependencies = []
# ///
"""Writes the list that `rhumb licenses` prints, from the dependency graph of the program.

    python scripts/licenses.py           # write
    python scripts/licenses.py --check   # fail when the committed list differs
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "crates/cli/src/licenses.txt"


def main():
    command = ["cargo", "metadata", "--format-version", "1", "--locked"]
    data = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
    packages = {p["id"]: p for p in data["packages"]}
    nodes = {n["id"]: n for n in data["resolve"]["nodes"]}
    start = next(p["id"] for p in data["packages"] if p["name"] == "rhumb" and p["source"] is None)
    seen, open_ids = set(), [start]
    while open_ids:
        node = open_ids.pop()
        if node in seen:
            continue
        seen.add(node)
        for dep in nodes[node]["deps"]:
            # Tests and build scripts do not travel inside the program.
            if any(kind["kind"] is None for kind in dep["dep_kinds"]):
                open_ids.append(dep["pkg"])
    lines = ["# name\tversion\tlicense\tsource\n"]
    for p in sorted((packages[i] for i in seen), key=lambda p: (p["name"], p["version"])):
        if p["source"] is None:
            continue
        license_ = p["license"] or "see the source"
        lines.append(f"{p['name']}\t{p['version']}\t{license_}\t{p['repository'] or ''}\n")
    text = "".join(lines)
    if "--check" in sys.argv[1:]:
        if TARGET.read_text(encoding="utf-8") != text:
            sys.exit(f"{TARGET.relative_to(ROOT)} is stale: run python scripts/licenses.py")
        return
    TARGET.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
