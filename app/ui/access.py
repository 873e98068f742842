"""Who may use the app, and for what: the owner for everything, or a team for reading. Decided once, from how the app is started."""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

import streamlit as st
from streamlit import config

from workbench.machines import logins
from workbench.machines.logins import AppLogin, Member
from workbench.rundir import permission

Mode = Literal["owner", "team"]
LOOPBACK = ("127.0.0.1", "localhost", "::1")
COOKIE = "workbench-{port}"
"""Named by the port that the browser sees: a host's cookies go to all of its ports."""
STANDARD_PORTS = {"http": 80, "https": 443}
OWNER_ONLY = "This app serves a team and only reads. Launching, controlling a run and checking data run code as the app's owner: that takes the owner's own app"


@dataclass
class Access:
    """How the app is opened. In team mode `origins` are the addresses that browsers use (`https://wb.example.org`); the owner's app has the loopback names."""

    mode: Mode
    origins: frozenset[str] = frozenset()
    session: str = ""
    """What the owner's cookie holds; set when the port is known."""
    _team: tuple[object, list[Member]] = field(default=(None, []), repr=False)

    def who(self, session: str) -> str | None:
        """The name of whoever has this session; None for nobody."""
        if self.mode == "owner":
            return "owner" if self.session and hmac.compare_digest(session.encode(), self.session.encode()) else None
        version = logins.team_version()
        if self._team[0] != version:
            self._team = version, logins.members()
        digest = logins.digest_of(session)
        names = [member.name for member in self._team[1] if hmac.compare_digest(member.digest, digest)]
        return names[0] if names else None


_access: Access | None = None


def begin() -> Access:
    """What streamlit_app.py calls before anything is served.

    Raises SystemExit, with the reason and the way, for an app that others could reach and nobody would be kept out of.
    """
    global _access
    try:
        _access = _decided(os.environ.get("WORKBENCH_APP", "owner"), os.environ.get("WORKBENCH_ORIGIN", ""), config.get_option("server.address"))
    except ValueError as error:
        raise SystemExit(f"The app does not start: {error}") from None
    if _access.mode == "team":
        permission.only_read(OWNER_ONLY)
        config.set_option("server.allowedHosts", [str(urlsplit(origin).hostname) for origin in _access.origins])
    return _access


def register(access: Access) -> AppLogin:
    """Note the app and its login token, once its port is known."""
    port, scheme = int(config.get_option("server.port")), "https" if config.get_option("server.sslCertFile") else "http"
    address = str(config.get_option("server.address"))
    here = f"{scheme}://{f'[{address}]' if ':' in address else address}:{port}"
    login = logins.register_app(port, here if access.mode == "owner" else sorted(access.origins)[0], with_token=access.mode == "owner")
    access.session = logins.session_of(login.token) if login.token else ""
    return login


def cookie_name(origin: str) -> str:
    """The name of the login cookie at this origin of the app."""
    parts = urlsplit(origin)
    return COOKIE.format(port=parts.port or STANDARD_PORTS[parts.scheme])


def may_change() -> bool:
    """Whether this app launches and controls runs. Where it may not, the functions that do refuse as well: `workbench.rundir.permission`."""
    return not permission.refusal()


def viewer() -> str | None:
    """The team member who looks at this page; None in the owner's app."""
    if _access is None or _access.mode == "owner":
        return None
    return _access.who(st.context.cookies.get(cookie_name(st.context.headers.get("origin", "")), ""))


def _decided(mode: str, origins: str, address: str | None) -> Access:
    if mode == "owner":
        if address not in LOOPBACK:
            raise ValueError(
                f"server.address is {address or 'every interface'}, where others reach it, and the owner's app may launch and control everything."
                f" Bind it to 127.0.0.1 and come from another machine by ssh -L 8501:localhost:8501, or let a team read:"
                " WORKBENCH_APP=team WORKBENCH_ORIGIN=https://name workbench app"
            )
        return Access("owner")
    if mode != "team":
        raise ValueError(f"WORKBENCH_APP is owner or team, got {mode!r}")
    named = frozenset(_origin(word) for word in origins.replace(",", " ").split())
    if not named or len({origin.partition(":")[0] for origin in named}) > 1:
        raise ValueError(
            "team mode needs the address that browsers use, such as WORKBENCH_ORIGIN=https://wb.example.org; of several, all http or all https"
        )
    return Access("team", named)


def _origin(word: str) -> str:
    """Scheme, host and port as a browser's Origin header has them. Raises ValueError for what is none."""
    parts = urlsplit(word.lower())
    standard = STANDARD_PORTS.get(parts.scheme)
    if standard is None or not parts.hostname or parts.username or parts.path not in ("", "/") or parts.query:
        raise ValueError(f"WORKBENCH_ORIGIN: {word!r} is not an origin such as https://wb.example.org or http://10.0.0.5:8501")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port not in (None, standard) else "")
