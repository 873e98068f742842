"""The headers of every answer: what a page of the app may load, and who may show or open it."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

import streamlit
from starlette.datastructures import MutableHeaders

INLINE = re.compile(rb"<script>(.*?)</script>", re.DOTALL)


@cache
def _streamlits_inline_scripts() -> str:
    """The hashes of the inline scripts in the frontend's page, which is the only one that has any."""
    page = (Path(streamlit.__file__).parent / "static" / "index.html").read_bytes()
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'" for script in INLINE.findall(page))


def policy(origin: str) -> str:
    """The Content-Security-Policy of the app at this origin: nothing comes from another server, and nothing is sent to one.

    The frontend loads the scripts of components (the live charts) as blobs that it made itself; no markup can make one. Without an origin, for a request under another name, no socket is allowed either.
    """
    socket = origin.replace("http", "ws", 1)
    return "; ".join(
        (
            "default-src 'self'",
            f"script-src 'self' blob: {_streamlits_inline_scripts()}",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "media-src 'self' data: blob:",
            "font-src 'self' data:",
            f"connect-src 'self' {socket}".rstrip(),
            "worker-src 'self' blob:",
            "frame-src 'none'",
            "frame-ancestors 'none'",
            "object-src 'none'",
            "base-uri 'self'",
            "form-action 'self'",
        )
    )


def add(headers: MutableHeaders, origin: str) -> None:
    """Put them on an answer."""
    headers["content-security-policy"] = policy(origin)
    headers["referrer-policy"] = "no-referrer"
    headers["x-content-type-options"] = "nosniff"
    headers["x-frame-options"] = "DENY"
    headers["x-dns-prefetch-control"] = "off"
    headers["cross-origin-opener-policy"] = "same-origin"
    headers["cross-origin-resource-policy"] = "same-origin"
