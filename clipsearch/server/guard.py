"""Who may ask: every request passes here before anything else looks at it.

Other people on the machine and other sites in the browser are kept out by a random token, which the first address
contains and a cookie replaces; names that lead to this machine only by a trick of a name server, by the Host header;
and requests that another site sends in the user's name, by the Origin header.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
from collections.abc import Iterable
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_log = logging.getLogger(__name__)

_COOKIE = "clipsearch"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_SAFE = ("GET", "HEAD")
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_ADDRESS_NEEDED = (
    "This page needs the address with the token that was printed when the server was started.\n"
    "Programs send it as a header: Authorization: Bearer TOKEN\n"
)


class Guard:
    """Passes on the requests that are allowed, and adds headers for safety to all responses."""

    def __init__(self, app: ASGIApp, *, token: str, names: Iterable[str] = (), any_address: bool = False) -> None:
        """Guard an application.

        Args:
            app: The application.
            token: The secret of those who may ask.
            names: Names of this machine that a Host header may have, besides those of the loopback interface.
            any_address: Whether a Host header may also be any IP address. An attacker's page has a name, not an
                address, so that this is safe against names that lead elsewhere than they did (DNS rebinding).
        """
        self._app = app
        self._token = token.encode()
        # What the cookie holds is no token, so that who sees the one does not have the other.
        self._ticket = hashlib.blake2b(b"cookie", key=hashlib.sha256(self._token).digest()).hexdigest()[:43]
        self._names = {*_LOOPBACK, *(name.lower() for name in names)}
        self._any_address = any_address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":  # the start and the end of the server
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    added.setdefault(name, value)
                added.setdefault("Cache-Control", "no-store")
            await send(message)

        refused = self._refused(scope, headers)
        await (refused or self._app)(scope, receive, with_headers)

    def _refused(self, scope: Scope, headers: Headers) -> Response | None:
        """Return the response to a request that is not allowed; None if it is."""
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            return _refusal(421, "The Host header names another machine.")
        changes = scope["method"] not in _SAFE
        strange = changes and any(not _is_same(origin, hosts[0]) for origin in origins)
        if strange or (headers.get("sec-fetch-site") == "cross-site" and scope["path"] != "/"):
            return _refusal(403, "The request comes from another site.")
        by_cookie = self._has_cookie(headers, scope)
        if by_cookie and changes and not origins:
            return _refusal(403, "The request does not say where it comes from.")
        if by_cookie or self._has_bearer(headers):
            return None
        if scope["path"] == "/" and scope["method"] in _SAFE:
            return self._first(scope)
        return _refusal(401, "The token is missing or wrong.", {"WWW-Authenticate": "Bearer"})

    def _first(self, scope: Scope) -> Response:
        """Return the response to an address with the token: the cookie, and the same address without the token."""
        values = parse_qsl(scope["query_string"].decode("latin-1"))
        tokens = [value for name, value in values if name == "token"]
        if len(tokens) != 1 or not hmac.compare_digest(tokens[0].encode(), self._token):
            return PlainTextResponse(_ADDRESS_NEEDED, 401)
        rest = urlencode([(name, value) for name, value in values if name != "token"])
        response = RedirectResponse(f"/?{rest}" if rest else "/", 303)
        response.set_cookie(_cookie_name(scope), self._ticket, httponly=True, samesite="strict")
        return response

    def _is_ours(self, host: str) -> bool:
        name = _name_of(host)
        if name in self._names:
            return True
        if not self._any_address:
            return False
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return True

    def _has_cookie(self, headers: Headers, scope: Scope) -> bool:
        found = cookie_parser(headers.get("cookie", "")).get(_cookie_name(scope), "")
        return hmac.compare_digest(found.encode(), self._ticket.encode())

    def _has_bearer(self, headers: Headers) -> bool:
        kind, _, token = headers.get("authorization", "").partition(" ")
        return kind.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), self._token)


def _refusal(status: int, reason: str, headers: dict[str, str] | None = None) -> Response:
    _log.info("refused: %s", reason)
    return JSONResponse({"error": reason}, status, headers)


def _cookie_name(scope: Scope) -> str:
    """Return the name of the cookie: cookies of all ports of a machine are one set, so it contains the port."""
    return f"{_COOKIE}-{(scope.get('server') or ('', 0))[1]}"


def _name_of(host: str) -> str:
    """Return the name or address in a Host header, without the port."""
    name, colon, port = host.lower().rpartition(":")
    return name if colon and (port.isdecimal() or not port) and not host.endswith("]") else host.lower()


def _is_same(origin: str, host: str) -> bool:
    parts = urlsplit(origin)
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()
