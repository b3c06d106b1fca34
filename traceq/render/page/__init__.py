"""One self-contained page of a comparison, or of one capture: no network, no name as HTML.

Style and script are the files beside this one; the data stand in the page as JSON. Its policy
(Content-Security-Policy) allows that one style sheet and that one script, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from importlib.resources import files
from typing import Any

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'sha256-{style_hash}'; script-src 'sha256-{script_hash}'; base-uri 'none'; form-action 'none'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<a class="skip" href="#tables">To the tables</a>
<header></header>
<main></main>
<noscript>This page shows its tables and the call tree with a script, which is switched off here. {headline}</noscript>
<script type="application/json" id="data">{data}</script>
<script>{script}</script>
</body>
</html>
"""


def to_page(title: str, data: dict[str, Any]) -> str:
    """The page with its data, which are plain: lists, texts and numbers."""
    style, script = (_file(name) for name in ("page.css", "page.js"))
    return _PAGE.format(
        title=html.escape(title),
        headline=html.escape(data["headline"]),
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
        data=_as_json(data),
    )


def _file(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _as_json(data: dict[str, Any]) -> str:
    """JSON that can end no script element: whatever a name holds, there is no < in it."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    escapes = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028"}
    for char, escape in (escapes | {"\u2029": "\\u2029"}).items():
        text = text.replace(char, escape)
    return text.encode("utf-8", "backslashreplace").decode()
