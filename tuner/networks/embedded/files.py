"""Where the stored file of each embedded network lies."""

from __future__ import annotations

from pathlib import Path

NETWORK_FILES: dict[str, Path] = {
    "GlyphNet": Path(__file__).with_name("glyphnet.keras"),
    "GaborNet": Path(__file__).with_name("gabornet.keras"),
}
"""The Keras file of each embedded network, by its name."""
