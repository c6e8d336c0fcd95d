"""Figures as HTML pages that draw without internet, in MLflow's artifact viewer and out of it.

MLflow's UI shows an HTML artifact in a sandboxed frame, and plotly.js is 4.8 MB. So a search stores
plotly.js once, and the many pages of its trials load it from there (`light_figure_html`); the few pages of
the search itself carry it within (`figure_html`).
"""

from __future__ import annotations

import html
import json
from string import Template

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

_PAGE = Template("""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>$title</title></head>
<body style="margin: 0; font-family: sans-serif">
$body
</body></html>
""")

# The frame's address is blob:<address of the MLflow server>/<id>; without blob:, it is a base for the URL.
_LIGHT_BODY = Template("""<div id="figure" style="height: 100vh">
<img id="picture" src="$image" alt="$title" style="max-width: 100%; max-height: 100%">
</div>
<script>
const figure = $figure;
const server = location.href.replace(/^blob:/, "");
if (server !== location.href) document.getElementById("picture").src = new URL($picture, server);
const library = document.createElement("script");
library.src = new URL($url, server);
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


def light_figure_html(figure: go.Figure, image: str, *, library: str, picture: str) -> str:
    """Give a small page with a figure; where it cannot load plotly.js, it shows an image of it.

    Parameters
    ----------
    figure
        Any figure.
    image
        The name of a picture beside the page, the same seen at a glance: for a page that was downloaded, or
        a server that wants a password.
    library, picture
        Where `plotly_js` and that picture are, relative to the address of the MLflow server, such as
        `get-artifact?path=charts/plotly.mjs&run_uuid=<run>`.
    """
    title = html.escape(html.unescape(figure.layout.title.text))
    body = _LIGHT_BODY.substitute(
        image=html.escape(image),
        title=title,
        figure=figure.to_json(),
        url=_script_string(library),
        picture=_script_string(picture),
    )
    return _PAGE.substitute(title=title, body=body)


def _script_string(text: str) -> str:
    return json.dumps(text).replace("<", "\\u003c")
