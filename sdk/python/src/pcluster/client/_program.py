"""What only the program `pcluster` does: it builds plugins, stores them, and changes streams."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any

from pcluster.client._model import ClientError, NotFound, TimedOut

if TYPE_CHECKING:
    from pcluster.client._wire import Wire

#: The settings of the program, by the options of `nats.connect` that log in.
LOGIN = {"user": "PCLUSTER_USER", "password": "PCLUSTER_PASSWORD", "token": "PCLUSTER_TOKEN", "user_credentials": "PCLUSTER_CREDS"}
#: The exit statuses that have an exception of their own.
KINDS = {3: TimedOut, 4: NotFound}


async def run(program: str, arguments: list[str], wire: Wire) -> dict[str, Any]:
    """Runs a command with a client's server. Returns what it prints as JSON."""
    environment = {**os.environ, "PCLUSTER_NATS": wire.url}
    if wire.domain:
        environment["PCLUSTER_DOMAIN"] = wire.domain
    environment.update({setting: wire.options[option] for option, setting in LOGIN.items() if option in wire.options})
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(program, *arguments, "--json", stdout=pipe, stderr=pipe, env=environment)
    except FileNotFoundError:
        raise ClientError(f"there is no program `{program}`; install it, or name it by `program`") from None
    out, said = await process.communicate()
    if process.returncode != 0:
        raise KINDS.get(process.returncode or 0, ClientError)(said.decode(errors="replace").strip().removeprefix("error: "))
    found: dict[str, Any] = json.loads(out) if out.strip() else {}
    return found
