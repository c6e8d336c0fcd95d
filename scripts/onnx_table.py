"""Which networks of the table export to ONNX, and how far features then differ: for docs/how-to/deploy.md.

python scripts/onnx_table.py MobileNet VGG16      (none named: all; without weights here: random ones)
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tuner.base.errors import TunerError
from tuner.experiment.networks import NetworkSpec
from tuner.networks.exporting.stored import exported
from tuner.networks.resolution import Network, resolve_network
from tuner.networks.store import NetworkStore
from tuner.networks.table import NETWORKS


def resolved(name: str, store: NetworkStore) -> tuple[Network, str]:
    """The network and its weights: its own where they are at hand, else seeded random ones."""
    own = NETWORKS[name].weights
    if own == "embedded" or name.startswith("EfficientNetLite"):
        return resolve_network(NetworkSpec(name=name), "float32", store), own
    return resolve_network(NetworkSpec(name=name, weights="random", seed=1), "float32", store), "random"


def row(name: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        store = NetworkStore(Path(folder))
        try:
            network, weights = resolved(name, store)
        except TunerError as error:
            return f"| {name} | | | | not built: {error} |"
        started = time.perf_counter()
        with exported(network, store) as result:
            done = result()
        seconds = f"{time.perf_counter() - started:.0f}"
        if done.file is None:
            return f"| {name} | {weights} | {seconds} | | {done.reason} |"
        differs = "comes with it" if done.difference is None else f"{done.difference:.1e}"
        return f"| {name} | {weights} | {seconds} | {done.file.stat().st_size / 1e6:.1f} | {differs} |"


def main(names: list[str]) -> None:
    print("| backbone | weights | export, s | file, MB | largest difference, of the largest feature |")
    print("| --- | --- | ---: | ---: | ---: |", flush=True)
    for name in names or NETWORKS:
        print(row(name), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
