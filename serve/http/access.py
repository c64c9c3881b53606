"""ASGI layers: who may call. With keys, whoever has one; without, whoever calls the service by a name of its own.

The health checks are open to all. `scope["state"]["caller"]` is "key:<name>" or "address:<ip>" for the layers below.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.http.errors import ApiError
from serve.http.keys import Keys

HEALTH_PATHS = frozenset({"/healthz", "/readyz"})
_CHALLENGE = 'Basic realm="CoMEM", charset="UTF-8", Bearer realm="CoMEM"'


def is_health_check(scope: Scope) -> bool:
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    return scope["method"] in ("GET", "HEAD") and path in HEALTH_PATHS


def client_address(scope: Scope) -> str:
    """The client's address. Of an IPv6 address its network of 64 bits, which one client has as a whole."""
    host = (scope.get("client") or ("unknown",))[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return str(host)[:64]
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
    return str(address)


class Access:
    """401 without one of `keys`. Sets the caller."""

    def __init__(self, app: ASGIApp, keys: Keys):
        self.app, self.keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            state = scope.setdefault("state", {})
            state["caller"] = f"address:{client_address(scope)}"
            if self.keys and not is_health_check(scope):
                try:
                    state["caller"] = f"key:{self._name(Headers(scope=scope))}"
                except ApiError as refusal:
                    await refusal.response()(scope, receive, send)
                    return
        await self.app(scope, receive, send)

    def _name(self, headers: Headers) -> str:
        key = _sent_key(headers.get("authorization", ""))
        if key is None:
            message = "this service wants a key: send Authorization: Bearer KEY (a browser: the key as password)"
            raise _unauthorized("missing_key", message)
        name = self.keys.name_of(key)
        if name is None:
            raise _unauthorized("wrong_key", "this key is not one of the service's: ask its operator for one")
        return name


def _sent_key(authorization: str) -> bytes | None:
    """The key of `Bearer KEY`, or of `Basic` as the password of any user name."""
    scheme, _, value = authorization.partition(" ")
    value = value.strip()
    if scheme.lower() == "bearer" and value:
        return value.encode("latin-1", "replace")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).partition(b":")[2] or None
        except (binascii.Error, ValueError):
            return None
    return None


def _unauthorized(type: str, message: str) -> ApiError:
    return ApiError(401, type, message, None, {"WWW-Authenticate": _CHALLENGE})


class Hosts:
    """421 for a Host header of another name than `names`, port ignored.

    Against DNS rebinding: a page whose name resolves to this service could otherwise read it through its visitor's
    browser. `*` allows any name.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str]):
        self.app, self.names = app, {_host_name(name) for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or "*" in self.names or is_health_check(scope):
            await self.app(scope, receive, send)
            return
        sent = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        if len(sent) == 1 and _host_name(sent[0]) in self.names:
            await self.app(scope, receive, send)
            return
        host = repr(sent[0][:100]) if sent else "missing"
        message = f"the Host header is {host}, which is not in api.allowed_hosts: add it there, or set API keys"
        await ApiError(421, "unknown_host", message).response()(scope, receive, send)


def _host_name(host: str) -> str:
    """`host` without its port, the brackets of IPv6, and a dot at its end; lower case."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    if host.count(":") == 1:
        host = host.partition(":")[0]
    return host.removesuffix(".")
