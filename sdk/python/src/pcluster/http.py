"""Requests to HTTP servers that the stage is granted: `http.get("https://api.example.com/rates").raise_for_status().json()`.

A request that is not safe, such as `POST`, carries the same `Idempotency-Key` at each attempt on the item.
"""

from __future__ import annotations

from pcluster._call import call, data, millis
from pcluster._errors import CallError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import timedelta
    from typing import Any


class Secret:
    """The value of a header that the node fills in. `Secret("token").bearer()` puts `Bearer ` in front."""

    def __init__(self, name: str, **how: str) -> None:
        self._value = {"secret": name, **how}

    def __repr__(self) -> str:
        return f"Secret({self._value['secret']!r})"

    def bearer(self) -> Secret:
        return self.after("Bearer ")

    def after(self, prefix: str) -> Secret:
        return Secret(self._value["secret"], prefix=prefix)

    def basic(self, user: str) -> Secret:
        return Secret(self._value["secret"], basic=user)


class Response:
    """The answer of a server. A status such as 404 is none of an error: see `raise_for_status`."""

    def __init__(
        self, status: int, body: bytes = b"", headers: Iterable[tuple[str, bytes]] = (), url: str = "", retry_after_ms: int | None = None
    ) -> None:
        self.status = status
        self.body = body
        #: By names in lower case. Of a header that comes twice, both values, with a comma between.
        self.headers: dict[str, str] = {}
        for name, value in headers:
            text = bytes(value).decode("utf-8", "replace")
            self.headers[name] = f"{self.headers[name]}, {text}" if name in self.headers else text
        self.url = url
        self.retry_after_ms = retry_after_ms

    def __repr__(self) -> str:
        return f"Response({self.status})"

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        import json

        return json.loads(self.body)

    def raise_for_status(self) -> Response:
        """Raises a `CallError` for a status from 400 on. One that may pass is tried again."""
        if self.status < 400:
            return self
        is_conflict = self.status in (409, 412)
        transient = is_conflict or self.status in (408, 425, 429) or self.status >= 500
        kind = "conflict" if is_conflict else "unavailable" if transient else "invalid"
        raise CallError(kind, f"{self.url} answered {self.status}", transient=transient, after_ms=self.retry_after_ms)


def request(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str | bytes | Secret] | None = None,
    body: str | bytes | None = None,
    json: Any = None,
    idempotency: str | bool | None = None,
    timeout: float | timedelta | None = None,
    redirects: int | None = None,
) -> Response:
    """Sends a request. `idempotency` replaces the node's key, or is `False` for none."""
    fields = [[name, value._value if isinstance(value, Secret) else data(value)] for name, value in (headers or {}).items()]
    if json is not None:
        import json as codec

        body = codec.dumps(json)
        if not any(name.lower() == "content-type" for name, _ in fields):
            fields.append(["Content-Type", b"application/json"])
    answer = call(
        "http",
        url=url,
        method=method,
        headers=fields or None,
        body=None if body is None else data(body),
        idempotency=None if idempotency is True else idempotency,
        timeout_ms=millis(timeout),
        redirects=redirects,
    )
    return Response(
        answer["status"], answer.get("body", b""), answer.get("headers", ()), answer.get("url", url), answer.get("retry_after_ms")
    )


def get(url: str, **options: Any) -> Response:
    return request("GET", url, **options)


def head(url: str, **options: Any) -> Response:
    return request("HEAD", url, **options)


def post(url: str, **options: Any) -> Response:
    return request("POST", url, **options)


def put(url: str, **options: Any) -> Response:
    return request("PUT", url, **options)


def patch(url: str, **options: Any) -> Response:
    return request("PATCH", url, **options)


def delete(url: str, **options: Any) -> Response:
    return request("DELETE", url, **options)
