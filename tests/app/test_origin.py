"""Which pages may ask, by scheme, host and port."""

import pytest
from starlette.requests import HTTPConnection
from ui import origin

HOST, OWN = "127.0.0.1:8501", "http://127.0.0.1:8501"
TEAM = frozenset({"https://wb.example.org", "https://wb.example.org:8443"})
NAVIGATION = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


def refused(kind: str, headers: dict[str, str], origins: frozenset[str] = frozenset(), scheme: str = "http") -> bool:
    """Of a GET, a POST or a WebSocket (`ws`)."""
    scope = {"type": "websocket" if kind == "ws" else "http", "method": kind, "scheme": "ws" if kind == "ws" else scheme}
    sent = {"host": HOST, **headers}
    scope["headers"] = [(name.encode(), value.encode()) for name, value in sent.items()]
    return bool(origin.refusal(HTTPConnection(scope), origins))


@pytest.mark.parametrize("kind", ["ws", "PUT", "POST", "DELETE", "PATCH", "OPTIONS"])
def test_what_changes_something_comes_from_exactly_this_origin(kind):
    assert not refused(kind, {"origin": OWN})
    assert not refused(kind, {"origin": "http://localhost:9000", "host": "localhost:9000"})  # through a tunnel
    assert not refused(kind, {"origin": "http://[::1]:8501", "host": "[::1]:8501"})
    assert refused(kind, {})
    others = (
        "http://127.0.0.1:8502",
        "http://localhost:8501",
        "https://127.0.0.1:8501",
        "http://127.0.0.1",
        "null",
        "http://evil.example",
        OWN + "/",
    )
    assert not [other for other in others if not refused(kind, {"origin": other})]


@pytest.mark.parametrize(
    ("headers", "answered"),
    [
        ({}, True),
        ({"sec-fetch-site": "same-origin", "origin": OWN}, True),
        ({"sec-fetch-site": "none", **NAVIGATION}, True),
        ({"sec-fetch-site": "cross-site", **NAVIGATION}, True),
        ({"sec-fetch-site": "same-site", **NAVIGATION}, True),
        ({"sec-fetch-site": "same-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}, False),
        ({"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "script"}, False),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"}, False),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"origin": "http://localhost:8501"}, False),
        ({"origin": "null"}, False),
    ],
)
def test_what_reads(headers, answered):
    assert refused("GET", headers) != answered
    assert refused("HEAD", headers) != answered


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8501", "127.0.0.1.evil.example", "192.168.1.5:8501", "[::1", "user@127.0.0.1", "a@127.0.0.1:1@b", "", "127.0.0.2"],
)
def test_a_name_that_was_made_to_point_here_is_refused(host):
    assert refused("GET", {"host": host})
    assert refused("ws", {"host": host, "origin": f"http://{host}"})


def test_a_team_is_served_at_its_own_origins_alone():
    """Behind a proxy: the request's scheme is that between proxy and app, the origin's is the browser's."""
    assert not refused("ws", {"host": "wb.example.org", "origin": "https://wb.example.org"}, TEAM)
    assert not refused("GET", {"host": "wb.example.org:8443"}, TEAM)
    assert refused("ws", {"host": "wb.example.org", "origin": "http://wb.example.org"}, TEAM)
    assert refused("ws", {"host": "wb.example.org", "origin": "https://wb.example.org:8443"}, TEAM)
    assert refused("ws", {"host": "wb.example.org"}, TEAM)
    assert refused("GET", {"host": "127.0.0.1:8501"}, TEAM)
