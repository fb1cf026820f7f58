"""The value of a secret, for a task that must see it. A header takes a `pcluster.http.Secret` instead, which the node fills in."""

from __future__ import annotations

from pcluster._call import call


def reveal(name: str) -> bytes:
    """Returns the value, where the manifest grants `"reveal"`. Keep it out of outputs, logs and errors."""
    return bytes(call("secrets.get", name=name)["value"])
