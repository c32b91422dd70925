"""Videos from URLs, for servers that allow them: http and https, limited, no way inside."""

from __future__ import annotations

import http.client
import ipaddress
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from flowsight.errors import InputError, ResourceError
from flowsight.serving.memory import Limits

TIMEOUT_SEC = 10.0
"""For the connection and for each piece."""
WHOLE_SEC = 60.0
"""For the whole file."""
_PIECE = 1 << 20


def is_url(text: str) -> bool:
    """Whether a request's `video` is meant as a URL."""
    return "://" in text


def fetch(url: str, target: Path, *, mode: str, limits: Limits) -> None:
    """Download a video.

    Args:
        url: http or https.
        target: file to write.
        mode: `0` refuses, `1` takes public hosts only, `any` all hosts.
        limits: `max_bytes` is read.

    Raises:
        InputError: not allowed, another scheme, a host inside, no such file there, or too large.
        ResourceError: it does not answer, or too slowly.
    """
    if mode == "0":
        raise InputError("expected a path or `content`: this server takes no URLs")
    if not url.lower().startswith(("http://", "https://")):
        raise InputError("expected an http or https URL")
    opener = urllib.request.OpenerDirector()
    for handler in _handlers(public=mode != "any"):
        opener.add_handler(handler)
    try:
        with opener.open(url, timeout=TIMEOUT_SEC) as answer:
            _copy(answer, target, limits.max_bytes)
    except urllib.error.HTTPError as error:
        raise InputError(f"expected a video at the URL, got HTTP status {error.code}") from None
    except (OSError, http.client.HTTPException) as error:
        if isinstance(getattr(error, "reason", None), _InsideError):
            raise InputError("expected the URL of a public host, got one inside") from None
        raise ResourceError("expected the URL to answer in time, it did not") from None
    except ValueError:
        raise InputError("expected a URL, got other text") from None


def _copy(answer: Any, target: Path, max_bytes: int | None) -> None:
    start, count = time.monotonic(), 0
    with target.open("wb") as file:
        while piece := answer.read(_PIECE):
            count += len(piece)
            if max_bytes is not None and count > max_bytes:
                raise InputError(f"expected at most {max_bytes / 1e6:g} MB at the URL, got more")
            if time.monotonic() - start > WHOLE_SEC:
                raise ResourceError(f"expected the whole video within {WHOLE_SEC:g} s")
            file.write(piece)


class _InsideError(OSError):
    """The host is this machine, or one of its network."""


class _PublicHTTP(http.client.HTTPConnection):
    def connect(self) -> None:
        super().connect()
        _check_public(self)


class _PublicHTTPS(http.client.HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        _check_public(self)


def _check_public(connection: http.client.HTTPConnection) -> None:
    """Look at the address that was really reached, before anything is asked of it."""
    address = ipaddress.ip_address(connection.sock.getpeername()[0].split("%")[0])
    mapped = getattr(address, "ipv4_mapped", None) or address
    if not mapped.is_global or mapped.is_multicast:
        connection.close()
        raise _InsideError("host inside")


class _HTTPHandler(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_PublicHTTP, req)


class _HTTPSHandler(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_PublicHTTPS, req)


def _handlers(*, public: bool) -> list[urllib.request.BaseHandler]:
    """No proxies, no files, no FTP; each hop of a redirection is checked like the first."""
    plain = [_HTTPHandler(), _HTTPSHandler()] if public else [
        urllib.request.HTTPHandler(), urllib.request.HTTPSHandler()
    ]  # fmt: skip
    return [
        *plain,
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
    ]
