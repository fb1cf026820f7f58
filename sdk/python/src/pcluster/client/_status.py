"""What a chain has at the moment: its queues, counters and dead letters."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from pcluster import _cbor
from pcluster.client import _wire
from pcluster.client._model import DeadLetter, StageStatus, Status
from pcluster.client._wire import NO_MESSAGE, ApiError, header

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pcluster.client._wire import Wire

#: The queues in front of a hop.
LANES = ("work", "retry", "alone", "parked")
#: The first line of headers, as the server stores them.
HEADERS = b"NATS/1.0"


async def status(wire: Wire, chain: str) -> Status:
    """Returns the status of a chain."""
    state = await wire.state(chain)
    number = int(state["active"])
    revision = await wire.revision(chain, number)
    queued = await wire.counts(f"PCLUSTER_{chain}", f"pcluster.{chain}.*.{number}.>")
    stages = []
    for stage in revision["manifest"]["stage"]:
        name = stage["name"]
        places = [f"pcluster.{chain}.{lane}.{number}.{name}" for lane in LANES]
        waiting = sum(
            count for subject, count in queued.items() if any(subject == each or subject.startswith(f"{each}.") for each in places)
        )
        done, failed = [await counter(wire, f"pcluster.{chain}.count.{number}.{name}.{what}") for what in ("done", "failed")]
        stages.append(StageStatus(name, None if stage.get("inline") else waiting, done, failed))
    pull = await wire.api(f"CONSUMER.INFO.PCLUSTER_{chain}_OUT.pull")
    letters = await wire.counts(f"PCLUSTER_{chain}_DEAD", f"pcluster.{chain}.dead.*")
    return Status(
        chain=chain,
        version=revision["version"],
        revision=number,
        is_open=bool(state["open"]),
        unfinished=await wire.messages(f"PCLUSTER_{chain}"),
        results=pull["num_pending"] + pull["num_ack_pending"],
        dead=sum(count for subject, count in letters.items() if not subject.endswith(".+item")),
        stages=stages,
    )


async def counter(wire: Wire, subject: str) -> int:
    data = await wire.last("PCLUSTER_COUNT", subject)
    return int(json.loads(data)["val"]) if data else 0


async def dead(wire: Wire, chain: str, stage: str | None) -> AsyncIterator[DeadLetter]:
    """Yields the dead letters of a chain, oldest first."""
    place = 1
    while True:
        request = {"seq": place, "next_by_subj": f"pcluster.{chain}.dead.{stage or '*'}"}
        try:
            message = (await wire.api(f"STREAM.MSG.GET.PCLUSTER_{chain}_DEAD", request))["message"]
        except ApiError as error:
            if error.code == NO_MESSAGE:
                return
            raise
        place = message["seq"] + 1
        headers = parsed(base64.b64decode(message.get("hdrs", "")))
        if not header(headers, "Pcluster-Item-Part"):
            yield letter(message["seq"], headers, base64.b64decode(message.get("data", "")))


def parsed(block: bytes) -> dict[str, str]:
    """Reads headers. Of several with one name the first counts."""
    found: dict[str, str] = {}
    for line in block.removeprefix(HEADERS).decode("utf-8", "replace").split("\r\n"):
        name, colon, value = line.partition(":")
        if colon:
            found.setdefault(name, value.strip())
    return found


def letter(number: int, headers: dict[str, str], payload: bytes) -> DeadLetter:
    """Returns a dead letter."""
    own = header(headers, "Pcluster-Id")
    part = _wire.positions(header(headers, "Pcluster-Part"), 1)[0]
    index = _wire.positions(header(headers, "Pcluster-Index"), part + 1)
    return DeadLetter(
        number=number,
        value=value_of(headers, payload),
        payload=payload,
        id=_wire.item_id(_wire.fed_id(own), index[0] if len(index) == 1 else index[part]),
        topic=header(headers, "Pcluster-Topic") or None,
        stage=header(headers, "Pcluster-Stage"),
        failure=header(headers, "Pcluster-Failure"),
        reason=_wire.unescaped(header(headers, "Pcluster-Reason")),
        attempts=int(header(headers, "Pcluster-Attempts", "0")),
        version=header(headers, "Pcluster-Version"),
        revision=int(header(headers, "Pcluster-Revision", "0")),
        node=header(headers, "Pcluster-Node"),
        time=header(headers, "Pcluster-Time"),
        headers=_wire.foreign(headers),
    )


def value_of(headers: dict[str, str], payload: bytes) -> Any:
    """Returns the item of a dead letter. `None` if it cannot be read, or lies elsewhere."""
    if header(headers, "Content-Type") or header(headers, "Pcluster-Large"):
        return None
    try:
        return _cbor.loads(payload)
    except (ValueError, TypeError):
        return None
