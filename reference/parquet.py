# /// script
# requires-python = ">=3.10"
# dependencies = ["pyarrow==22.0.0"]
# ///
"""Small Parquet files as other programs write them, by pyarrow.

    uv run reference/parquet.py

Writes fixtures/parquet/<case>.parquet: conversations as lists of structures in three row groups with Snappy, the same
with Zstandard and dictionaries off, questions and answers with gzip, and columns that are no conversation.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

OUT = Path(__file__).resolve().parent.parent / "fixtures" / "parquet"


def chats(n):
    turn = pa.struct([("role", pa.string()), ("content", pa.string()), ("name", pa.string())])
    rows = [
        [
            {"role": "user", "content": f"{i}+{i}?", "name": None},
            {"role": "assistant", "content": f"{2 * i}, nämlich", "name": "A" if i == 1 else None},
        ]
        * (1 + i % 2)
        for i in range(n)
    ]
    return pa.table(
        {
            "prompt_id": pa.array([f"id{i}" for i in range(n)]),
            "messages": pa.array(rows, type=pa.list_(turn)),
            "score": pa.array([i / 2 for i in range(n)]),
        }
    )


def write(name, table, **how):
    pq.write_table(table, OUT / f"{name}.parquet", store_schema=False, **how)


OUT.mkdir(parents=True, exist_ok=True)
write("messages-snappy", chats(7), compression="snappy", row_group_size=3)
write("messages-zstd", chats(7), compression="zstd", use_dictionary=False, data_page_version="2.0")
write(
    "alpaca-gzip",
    pa.table(
        {
            "instruction": ["Add.", "Greet."],
            "input": ["1, 2", None],
            "output": ["3", "Hello"],
            "text": ["Add. 1, 2 3", "Greet. Hello"],
        }
    ),
    compression="gzip",
)
write("other-columns", pa.table({"image": pa.array([b"\xff\xd8"]), "label": pa.array([1]), "text": pa.array([b"\xff"])}))
