"""The coordinator's status page, as it is sent: one HTML file that loads nothing and asks `/status` each second."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

PAGE = (Path(__file__).parent / "status_page.html").read_bytes()
"""The page. It holds nothing about the cluster, so it may be sent to whoever asks: `/status` wants the token."""


def _hash(tag: str) -> str:
    """The content-security-policy source of the page's one inline <tag>."""
    inline = PAGE.split(f"<{tag}>".encode())[1].split(f"</{tag}>".encode())[0]
    return f"'sha256-{base64.b64encode(hashlib.sha256(inline).digest()).decode()}'"


HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": (
        f"default-src 'none'; script-src {_hash('script')}; style-src {_hash('style')}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
"""Its headers: the browser runs its own script and style alone, and sends nothing to any other server."""
