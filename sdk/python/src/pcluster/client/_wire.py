"""The server's side: requests to JetStream, and the words of messages. `runtime/WIRE.md` is the contract."""

from __future__ import annotations

import base64
import difflib
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from pcluster import _cbor
from pcluster.client._model import ClientError, NotFound, TimedOut

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nats.aio.client import Client as Nats
    from nats.js.object_store import ObjectStore

#: The newest wire that this client knows.
WIRE = 2
#: How long to wait for an answer of the server, in seconds.
ANSWER = 5.0
CHAINS = "KV_pcluster_chains"
KEYS = "$KV.pcluster_chains."

#: The error codes of JetStream: nothing there of this name.
STREAM_NOT_FOUND, CONSUMER_NOT_FOUND, NO_MESSAGE = 10059, 10014, 10037


class ApiError(ClientError):
    """The server refuses a request."""

    def __init__(self, subject: str, error: Mapping[str, Any]) -> None:
        self.code = int(error.get("err_code", 0))
        super().__init__(f"the server refuses `{subject}`: {error.get('description', 'it does not say why')}")


class Wire:
    """A connection to the server."""

    def __init__(self, nats: Nats, url: str, domain: str | None, options: Mapping[str, Any]) -> None:
        self.nats = nats
        self.url = url
        self.domain = domain
        #: How the connection was made.
        self.options = options
        self.prefix = f"$JS.{domain}.API." if domain else "$JS.API."

    async def api(self, subject: str, request: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Asks JetStream."""
        from nats.errors import NoRespondersError
        from nats.errors import TimeoutError as NoAnswer

        data = json.dumps(request).encode() if request else b""
        try:
            answer = await self.nats.request(self.prefix + subject, data, timeout=ANSWER)
        except NoRespondersError:
            raise ClientError("the server has no JetStream for this user; start it with `-js`, or name its `domain`") from None
        except NoAnswer:
            raise TimedOut(f"the server does not answer `{subject}` within {ANSWER:g} s; try again once it does") from None
        parsed: dict[str, Any] = json.loads(answer.data)
        if "error" in parsed:
            raise ApiError(subject, parsed["error"])
        return parsed

    async def last(self, stream: str, subject: str) -> bytes | None:
        """Returns the payload of the last message of a subject. `None` if there is none."""
        try:
            answer = await self.api(f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject})
        except ApiError as error:
            if error.code in (NO_MESSAGE, STREAM_NOT_FOUND):
                return None
            raise
        return base64.b64decode(answer["message"].get("data", ""))

    async def counts(self, stream: str, subjects: str) -> dict[str, int]:
        """Returns how many messages of a stream have each of the subjects."""
        found: dict[str, int] = {}
        while True:
            request = {"subjects_filter": subjects, "offset": len(found)}
            answer = await self.api(f"STREAM.INFO.{stream}", request)
            page = answer["state"].get("subjects") or {}
            found.update(page)
            if not page or len(found) >= answer.get("total", 0):
                return found

    async def messages(self, stream: str) -> int:
        return int((await self.api(f"STREAM.INFO.{stream}"))["state"]["messages"])

    async def objects(self, bucket: str) -> ObjectStore:
        """Returns an object store."""
        jetstream = self.nats.jetstream(domain=self.domain) if self.domain else self.nats.jetstream()
        return await jetstream.object_store(bucket)

    async def chains(self) -> list[str]:
        """Returns the names of all chains."""
        try:
            keys = await self.counts(CHAINS, f"{KEYS}*")
        except ApiError as error:
            if error.code == STREAM_NOT_FOUND:
                return []
            raise
        return sorted(key.removeprefix(KEYS) for key in keys)

    async def state(self, chain: str) -> dict[str, Any]:
        """Returns the state of a chain that is deployed."""
        data = await self.last(CHAINS, KEYS + chain)
        state: dict[str, Any] = json.loads(data) if data else {}
        if not state or state["active"] not in state["live"]:
            near = difflib.get_close_matches(chain, await self.chains(), n=1)
            raise NotFound(f"there is no chain `{chain}`; " + (f"did you mean `{near[0]}`?" if near else "deploy it first"))
        if state.get("wire", 1) > WIRE:
            raise ClientError(
                f"chain `{chain}` is of a later pcluster, with wire {state['wire']}; install the package `pcluster` anew"
            )
        return state

    async def revision(self, chain: str, number: int) -> dict[str, Any]:
        """Returns a revision as it was deployed."""
        data = await self.last(CHAINS, f"{KEYS}{chain}.r{number}")
        if not data:
            raise NotFound(f"chain `{chain}` has no revision {number}")
        revision: dict[str, Any] = json.loads(data)
        return revision


def header(headers: Mapping[str, str] | None, name: str, otherwise: str = "") -> str:
    """Returns a header, whose name may be in any case."""
    for key, value in (headers or {}).items():
        if key.lower() == name.lower():
            return value
    return otherwise


def foreign(headers: Mapping[str, str] | None) -> dict[str, str]:
    """Returns the headers that are neither the server's nor pcluster's."""
    own = ("nats-", "pcluster-", "content-type")
    return {key: value for key, value in (headers or {}).items() if not key.lower().startswith(own)}


def fed_id(own: str) -> str:
    """Returns the id of what was fed, of the id of a message that came of it."""
    return unquote(own.split(".")[0].split("#")[0])


def positions(text: str, count: int) -> list[int]:
    """Reads `Pcluster-Index`: which item of the fed message each item of a message descends from."""
    if not text:
        return list(range(count))
    found: list[int] = []
    for run in text.split(","):
        first, times = run.partition("x")[::2]
        start, last = first.partition("-")[::2]
        found += [int(start)] * int(times) if times else range(int(start), int(last or start) + 1)
    return found


def runs(numbers: list[int]) -> str:
    """Writes `Pcluster-Index`."""
    return ",".join(map(str, numbers))


def item_id(message: str, position: int) -> str:
    return f"{message}#{position}" if position else message


def sequence(payload: bytes) -> list[tuple[bytes, Any]]:
    """Reads values that stand back to back. Returns each with its bytes."""
    reader, found = _cbor.Reader(payload), []
    while reader.at < len(payload):
        start = reader.at
        value = reader.value(0)
        found.append((payload[start : reader.at], value))
    return found


def unescaped(text: str) -> str:
    """Returns a reason as it was before it became a header."""
    return text.replace("\\\\", "\0").replace("\\n", "\n").replace("\0", "\\")
