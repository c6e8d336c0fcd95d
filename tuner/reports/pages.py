"""Figures as HTML pages that draw without internet, in MLflow's artifact viewer and out of it.

MLflow's UI shows an HTML artifact in a sandboxed frame, and plotly.js is 4.8 MB. So a search stores
plotly.js once, and the many pages of its trials load it from there (`light_figure_html`); the few pages of
the search itself carry it within (`figure_html`).
"""

from __future__ import annotations

import base64
import html
import io
import json
from string import Template

import plotly.graph_objects as go
from PIL import Image
from plotly.offline import get_plotlyjs

_PAGE = Template("""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>$title</title></head>
<body style="margin: 0; font-family: sans-serif">
$body
</body></html>
""")

# The frame's address is blob:<address of the MLflow server>/<id>; without blob:, it is a base for the URL.
_LIGHT_BODY = Template("""<div id="figure" style="height: 100vh">
<img src="$image" alt="$title" style="max-width: 100%; max-height: 100%">
</div>
<script>
const figure = $figure;
const library = document.createElement("script");
library.src = new URL($url, location.href.replace(/^blob:/, ""));
library.onload = () => {
  const place = document.getElementById("figure");
  place.replaceChildren();
  Plotly.newPlot(place, figure.data, figure.layout, {responsive: true});
};
document.head.append(library);
</script>""")


def figure_html(*figures: go.Figure) -> str:
    """Give a page of figures, one under the other, that carries plotly.js (4.8 MB) within."""
    parts = [
        figure.to_html(full_html=False, include_plotlyjs=number == 0, default_height="600px")
        for number, figure in enumerate(figures)
    ]
    return _PAGE.substitute(title="Charts", body="\n".join(parts))


def plotly_js() -> str:
    """Give plotly.js, for a search to store once.

    Store it with the ending `.mjs`: MLflow's server sends that as JavaScript, and `.js` as plain text,
    which browsers refuse to run.
    """
    source: str = get_plotlyjs()
    return source


def light_figure_html(figure: go.Figure, image: Image.Image, url: str) -> str:
    """Give a small page with a figure; it loads plotly.js from `url` and shows `image` where it cannot.

    Parameters
    ----------
    figure
        Any figure.
    image
        The same seen at a glance: for a page that was downloaded, or a server that wants a password.
    url
        Where `plotly_js` is stored, relative to the address of the MLflow server, such as
        `get-artifact?path=charts/plotly.mjs&run_uuid=<run>`.
    """
    title = html.escape(html.unescape(figure.layout.title.text))
    body = _LIGHT_BODY.substitute(
        image=_data_url(image), title=title, figure=figure.to_json(), url=_script_string(url)
    )
    return _PAGE.substitute(title=title, body=body)


def _data_url(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.quantize(64).save(buffer, "PNG", optimize=True)  # looks the same, half the size
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _script_string(text: str) -> str:
    return json.dumps(text).replace("<", "\\u003c")
