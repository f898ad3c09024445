# /// script
# requires-python = ">=3.10"
# dependencies = ["bitsandbytes==0.50.2", "torch==2.15.0", "numpy==2.4.6"]
# ///
"""The eight-bit dynamic maps as the package bitsandbytes builds them, on the CPU.

    uv run reference/state_formats.py

Writes fixtures/optimizers/dynamic-maps.json: the 256 values of the signed and the unsigned map, ascending.
"""

import importlib.metadata
import json
from pathlib import Path

from bitsandbytes.functional import create_dynamic_map

ROOT = Path(__file__).resolve().parent.parent

out = {
    "package": f"bitsandbytes {importlib.metadata.version('bitsandbytes')}",
    "signed": create_dynamic_map(signed=True).double().tolist(),
    "unsigned": create_dynamic_map(signed=False).double().tolist(),
}
(ROOT / "fixtures/optimizers/dynamic-maps.json").write_text(json.dumps(out, indent=1) + "\n")
