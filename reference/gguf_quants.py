# /// script
# requires-python = ">=3.10"
# dependencies = ["gguf==0.19.0", "numpy==2.4.6"]
# ///
"""Reference values of the GGUF storage types, by the `gguf` package for Python.

    python reference/gguf_quants.py                 # writes fixtures/gguf/
    python reference/gguf_quants.py --check FILE    # prints what the package reads in a file of ours

Writes, from a fixed seed:
  all_types.gguf   one tensor per readable type, of random but valid blocks (every byte random, the half-precision
                   scales finite, among them zero, subnormal and negative ones), and metadata of every type
  expected.json    per tensor: shape, FNV-1a-64 of the dequantised values as little-endian f32, eight from
                   the middle as hexadecimal bits; and for Q8_0 and F16 the bytes that the package makes of given values
"""

import argparse
import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T, GGUFReader, GGUFValueType as V, GGUFWriter
from gguf import dequantize, quantize

SEED = 20260711
ROWS = 4
# Where the half-precision numbers of a block lie.
SCALES = {
    T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0],
    T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208],
}  # fmt: skip
PLAIN = [T.F32, T.F16, T.BF16]


def fnv(data):
    h = 0xCBF29CE484222325
    for b in data:
        h = ((h ^ b) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{h:016x}"


def summary(values):
    data = np.ascontiguousarray(values, dtype="<f4").tobytes()
    middle = np.ascontiguousarray(values, dtype="<f4").view("<u4").ravel()[values.size // 2 :][:8]
    return {"shape": list(values.shape), "fnv1a64": fnv(data), "middle": [f"{b:08x}" for b in middle]}


def half_scales(rng, n):
    bits = rng.integers(0, 1 << 16, n, dtype=np.uint16)
    bits[0], bits[1], bits[2] = 0, 0x0001, 0x8001
    infinite = (bits & 0x7C00) == 0x7C00
    bits[infinite] &= 0xBFFF
    return bits


def blocks(rng, kind):
    """ROWS x 512 values of this type as raw bytes."""
    per_block, size = GGML_QUANT_SIZES[kind]
    n = ROWS * 512 // per_block
    raw = rng.integers(0, 256, (n, size), dtype=np.uint8)
    for at in SCALES[kind]:
        raw[:, at : at + 2] = half_scales(rng, n).view(np.uint8).reshape(n, 2)
    return raw.reshape(ROWS, -1)


def main():
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "fixtures/gguf")
    given.add_argument("--check", type=Path)
    given = given.parse_args()
    if given.check:
        return check(given.check)
    given.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(SEED)
    writer = GGUFWriter(given.out / "all_types.gguf", "llama")
    for kind, value in [
        (V.UINT8, 200), (V.INT8, -100), (V.UINT16, 60000), (V.INT16, -30000), (V.UINT32, 4_000_000_000),
        (V.INT32, -2_000_000_000), (V.FLOAT32, 1e-5), (V.BOOL, True), (V.STRING, "Grüße, 世界"),
        (V.UINT64, 1 << 63), (V.INT64, -(1 << 62)), (V.FLOAT64, 0.1),
    ]:  # fmt: skip
        writer.add_key_value(f"test.{kind.name.lower()}", value, kind)
    writer.add_array("test.strings", ["a", "", "ü"])
    writer.add_array("test.ints", [1, -2, 3])
    expected = {}
    for kind in [*PLAIN, *SCALES]:
        name = f"test.{kind.name.lower()}.weight"
        if kind in PLAIN:
            values = rng.standard_normal((ROWS, 48)).astype(np.float32)
            raw = quantize(values, kind)
        else:
            raw = blocks(rng, kind)
        shown = None if kind in (T.F32, T.F16) else kind
        writer.add_tensor(name, raw, raw_dtype=shown)
        expected[name] = summary(dequantize(raw, kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    # Values for the way back: of every size, with zeros, an all-zero block and exact halves.
    values = (rng.standard_normal((8, 32)) * 10.0 ** rng.integers(-6, 4, (8, 1))).astype(np.float32)
    values[0] = 0
    values[1, ::2] = 0
    values[2] = np.arange(32) - 0.5
    values[2, 0] = 127
    made = {
        kind.name: quantize(values, kind).view(np.uint8).tobytes().hex() for kind in (T.F16, T.Q8_0)
    }
    out = {
        "generator": "reference/gguf_quants.py",
        "versions": {p: version(p) for p in ("gguf", "numpy")},
        "seed": SEED,
        "dequantised": expected,
        "quantised": {"values": [f"{b:08x}" for b in values.ravel().view(np.uint32)], "bytes": made},
    }
    (given.out / "expected.json").write_text(json.dumps(out, indent=1) + "\n")


def checksum(values):
    """Sum of bits times 1, 3, 5 ... modulo 2^64: as fast as reading, and it sees exchanged values."""
    bits = np.ascontiguousarray(values, dtype="<f4").view("<u4").ravel().astype(np.uint64)
    return f"{int((bits * (2 * np.arange(bits.size, dtype=np.uint64) + 1)).sum()):016x}"


def check(path):
    reader = GGUFReader(path)
    for key, field in reader.fields.items():
        value = field.contents()
        print(key, f"{len(value)} entries" if isinstance(value, list) else value)
    for t in reader.tensors:
        values = dequantize(t.data, t.tensor_type)
        print(t.name, t.tensor_type.name, *(int(d) for d in reversed(t.shape)), checksum(values))


if __name__ == "__main__":
    main()
