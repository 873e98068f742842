"""What a second user of the machine, a page of a browser, and whoever has no token can do to a policy endpoint."""

from __future__ import annotations

import http.client
import json
import secrets
import socket
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tests.serve.endpoint import Served
from tests.trust.intruder import SEARCH, Intruder
from workbench.backends import _tls
from workbench.rundir import beats
from workbench.rundir.files import read_json
from workbench.serve import discovery, guard, listening
from workbench.serve.completions import Completions

ASK = """
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=60)
try:
    connection.request("GET", "/v1/models", headers={"Authorization": "Bearer " + sys.argv[2]})
    print("answered", connection.getresponse().read())
except (OSError, http.client.HTTPException) as error:
    print("closed", type(error).__name__)
"""


def asked(
    endpoint: Served, method: str = "GET", path: str = "/v1/models", body: str | None = None, **headers: str
) -> tuple[int, Mapping[str, str], Any]:
    """Status, headers and JSON, with the right token and host unless the headers say otherwise."""
    connection = http.client.HTTPConnection("127.0.0.1", endpoint.port, timeout=60)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, {"Authorization": f"Bearer {endpoint.token}", **named})
    response = connection.getresponse()
    return response.status, dict(response.getheaders()), json.loads(response.read())


def test_another_user_gets_no_byte_even_with_the_token(endpoint: Served, intruder: Intruder) -> None:
    assert asked(endpoint)[0] == 200
    assert intruder.python(ASK, str(endpoint.port), endpoint.token).stdout.startswith("closed")


def test_the_token_stands_in_nothing_that_others_read(endpoint: Served, intruder: Intruder) -> None:
    file = endpoint.run.dir.path / "endpoints" / discovery.HTTP_FILE
    assert not intruder.reads(file)
    assert file.stat().st_mode & 0o777 == 0o600
    (rank,) = (psutil.Process(beat.pid) for beat in beats.read(endpoint.run.dir))
    processes = [rank, *rank.children(recursive=True)]
    arguments = [" ".join(process.cmdline()) for process in processes]
    assert any("tritonserver" in each for each in arguments) and not any(endpoint.token in each for each in arguments)
    assert not any(intruder.reads(Path(f"/proc/{process.pid}/environ")) for process in processes)
    logs = [log.read_text(errors="replace") for log in endpoint.run.logs()]
    assert logs and not any(endpoint.token in log for log in logs)


def test_no_prompt_of_a_request_is_read_in_shared_memory(endpoint: Served, intruder: Intruder) -> None:
    word = secrets.token_hex(40)
    model = endpoint.client.models()[0].id
    assert list(endpoint.client.stream(model, [{"role": "user", "content": word}], max_tokens=2))
    assert intruder.python(SEARCH, "psm_", word).stdout.split()[1] == "0"


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer wrong", "Basic {token}", "Bearer {token}x", "{token}", "Bearer \u00e9"])
def test_without_the_token_nothing_is_answered(endpoint: Served, value: str) -> None:
    status, headers, body = asked(endpoint, Authorization=value.format(token=endpoint.token))
    assert (status, headers["www-authenticate"], body["error"]["type"]) == (401, "Bearer", "authentication_error")


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1"},
        {"Host": "127.0.0.1.evil.example:80"},
        {"Origin": "http://127.0.0.1:8501"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "same-origin"},
    ],
)
def test_a_page_of_a_browser_gets_nothing(endpoint: Served, headers: dict[str, str]) -> None:
    """By another name of this machine (DNS rebinding), by its origin, or by what browsers say of a request; no answer allows an origin."""
    status, sent, body = asked(endpoint, **headers)
    assert (status, body["error"]["type"]) == (403, "permission_error")
    assert not [name for name in sent if name.lower().startswith("access-control")]


def test_a_preflight_allows_nothing(endpoint: Served) -> None:
    status, sent, _ = asked(endpoint, "OPTIONS", "/v1/chat/completions", Origin="http://evil.example", Access_Control_Request_Method="POST")
    assert status == 403 and not [name for name in sent if name.lower().startswith("access-control")]


def test_a_form_and_a_large_body_are_refused_before_they_are_read(endpoint: Served) -> None:
    assert asked(endpoint, "POST", "/v1/completions", "{}", Content_Type="text/plain")[0] == 415
    assert asked(endpoint, "POST", "/v1/completions", "", Content_Type="application/json", Content_Length=str(2 << 20))[0] == 413
    chunks = iter([b" " * (1 << 19)] * 4)
    connection = http.client.HTTPConnection("127.0.0.1", endpoint.port, timeout=60)
    headers = {"Authorization": f"Bearer {endpoint.token}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/completions", chunks, headers, encode_chunked=True)  # type: ignore[arg-type]
    assert connection.getresponse().status == 413


def test_a_websocket_is_not_opened(endpoint: Served) -> None:
    status, _, _ = asked(endpoint, Connection="Upgrade", Upgrade="websocket", Sec_WebSocket_Key="x", Sec_WebSocket_Version="13", Origin="http://evil")
    assert status == 403


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir(mode=0o700)
    return tmp_path / "run"


def application() -> Starlette:
    async def models(request: object) -> PlainTextResponse:
        return PlainTextResponse('{"data": []}')

    return Starlette(routes=[Route("/v1/models", models)])


def test_a_connection_that_says_nothing_is_closed(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "HEADERS_S", 0.2)
    with listening.listening(run_dir, "127.0.0.1", 0, 1 << 20, application) as url:
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), 60) as silent:
            assert silent.recv(1) == b""
        assert Completions(*discovery.read_http(run_dir / "endpoints" / discovery.HTTP_FILE)).models() == []
    assert not (run_dir / "endpoints" / discovery.HTTP_FILE).exists()


@pytest.fixture
def elsewhere(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    """URL and token of an endpoint that listens as on a node of a cluster."""
    monkeypatch.setattr(listening, "on_this_machine", lambda host: False)
    with listening.listening(run_dir, "127.0.0.1", 0, 1 << 20, application):
        yield discovery.read_http(run_dir / "endpoints" / discovery.HTTP_FILE)


def test_between_machines_the_token_needs_the_runs_certificate(run_dir: Path, elsewhere: tuple[str, str], tmp_path: Path) -> None:
    url, token = elsewhere
    assert url.startswith("https://") and read_json(run_dir / "endpoints" / discovery.HTTP_FILE)["token"] == token
    assert Completions(url, token, discovery.context(run_dir, discovery.HTTP, url)).models() == []
    nobody, another = ssl.create_default_context(), _tls.context(tmp_path / "mine.tls", ssl.Purpose.SERVER_AUTH)
    nobody.check_hostname, nobody.verify_mode = False, ssl.CERT_NONE
    another.verify_mode = ssl.CERT_NONE
    for context in (nobody, another):
        with pytest.raises(ConnectionError):
            Completions(url, token, context).models()
