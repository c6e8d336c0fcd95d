"""The embedded networks: small, packaged with their weights, and in need of no download.

Importing this package is cheap: Keras is imported when a network is built, not before.
"""

from pathlib import Path

from tuner.networks.gabornet import build_gabornet
from tuner.networks.glyphnet import build_glyphnet

NETWORK_FILES: dict[str, Path] = {
    "GlyphNet": Path(__file__).with_name("glyphnet.keras"),
    "GaborNet": Path(__file__).with_name("gabornet.keras"),
}
"""Where the stored Keras file of each embedded network lies."""

__all__ = ["NETWORK_FILES", "build_gabornet", "build_glyphnet"]
