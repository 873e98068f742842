"""Which pages may ask: those of the app itself, by exact scheme, host and port. The rules of every route and WebSocket, in one place."""

from __future__ import annotations

import re

from starlette.requests import HTTPConnection

LOOPBACK_HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?")
READS = ("GET", "HEAD")


def refusal(asked: HTTPConnection, origins: frozenset[str]) -> str:
    """Why the request is not answered, by where it comes from; empty where it may be.

    `origins` are those that the app is served at; without any it is served at the machine's loopback names, under whatever port a tunnel gave it.
    """
    host = asked.headers.get("host", "")
    own = own_origin(host, asked.scope["scheme"], origins)
    if not own:
        return "The app is not served under this name"
    origin = asked.headers.get("origin")
    if origin is not None and origin != own:
        return "Only the app's own pages may ask"
    reads = asked.scope["type"] == "http" and asked.scope["method"] in READS
    if not reads:
        return "" if origin == own else "Only the app's own pages may change anything, and their browser says where they come from"
    site = asked.headers.get("sec-fetch-site", "same-origin")
    if site in ("same-origin", "none"):
        return ""
    navigates = asked.headers.get("sec-fetch-mode") == "navigate" and asked.headers.get("sec-fetch-dest") == "document"
    return "" if navigates else "Only the app's own pages may ask"


def own_origin(host: str, scheme: str, origins: frozenset[str]) -> str:
    """The app's origin that this Host header names; empty where it names none."""
    if not origins:
        return f"{'https' if scheme in ('https', 'wss') else 'http'}://{host}" if LOOPBACK_HOST.fullmatch(host) else ""
    return next((origin for origin in origins if origin.partition("://")[2] == host.lower()), "")
