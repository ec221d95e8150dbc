"""What pages in one file have in common: the policy that a browser follows in them, and the escaping of texts.

Knows nothing of what a page shows.
"""

from __future__ import annotations

import base64
import hashlib
import re
from html import escape
from importlib import resources

from clipsearch.output.paths import printable


def policy(template: str) -> str:
    """Return a content security policy: nothing is loaded, and only the template's styles and scripts allowed."""
    allowed = ""
    for tag in ("style", "script"):
        own = re.findall(rf"<{tag}>(.*?)</{tag}>", template, re.DOTALL)
        digests = (base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() for content in own)
        if hashes := " ".join(f"'sha256-{digest}'" for digest in digests):
            allowed += f"{tag}-src {hashes}; "
    return f"default-src 'none'; img-src data:; {allowed}base-uri 'none'; form-action 'none'"


def with_parts(template: str) -> str:
    """Return a template with the style and the scripts that it shares with the page that is served."""
    folder = resources.files("clipsearch.output").joinpath("page_parts")
    style, script = (folder.joinpath(name).read_text("utf-8") for name in ("shared.css", "parts.js"))
    script = re.sub(r"^export ", "", script, flags=re.MULTILINE)
    return template.replace("{{style}}", style).replace("{{parts}}", script)


def html(text: str) -> str:
    """Escape `text` for HTML, between tags or in an attribute; control characters and surrogates become escapes."""
    return escape(printable(text.encode("utf-8", "backslashreplace")))
