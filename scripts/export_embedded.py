"""Export the embedded networks to ONNX, beside their Keras files: after one of them changed.

python scripts/export_embedded.py
"""

from __future__ import annotations

import numpy as np

from tuner.networks.embedded.files import NETWORK_FILES
from tuner.networks.exporting.program import Request, compare, convert
from tuner.networks.table import NETWORKS


def main() -> None:
    for name, file in NETWORK_FILES.items():
        row = NETWORKS[name]
        request = Request(str(file), row.input_size, row.preprocessing, "avg")
        target = file.with_suffix(".onnx")
        convert(request, target)
        images = np.random.default_rng(1).random((64, *row.input_size, 3), np.float32)
        difference = compare(request, target, images)
        print(f"{name}: {target.stat().st_size:,} bytes, differs by {difference:.1e} of the largest")


if __name__ == "__main__":
    main()
