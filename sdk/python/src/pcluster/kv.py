"""Entries of NATS KV buckets that the stage is granted: `kv.Bucket("rates").get("USD")`.

An item may be tried again after its task has written: `get`, `put`, `delete` and `keys` may run twice; `create` and `update` fail with a
`CallError` of the kind `conflict` the second time.
"""

from __future__ import annotations

from pcluster._call import call, call_for, data, millis, pages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta


class Entry:
    """An entry as it was read."""

    def __init__(self, value: bytes, revision: int) -> None:
        self.value = value
        self.revision = revision

    def __repr__(self) -> str:
        return f"Entry({self.value!r}, {self.revision})"

    @property
    def text(self) -> str:
        return self.value.decode()


class Bucket:
    """A bucket. Entries that are written through it expire after `ttl`, in seconds or as a `timedelta`."""

    def __init__(self, name: str, *, ttl: float | timedelta | None = None) -> None:
        self.name = name
        self._ttl = millis(ttl)

    def get(self, key: str) -> Entry | None:
        """Returns an entry. `None` if there is none."""
        answer = call_for("kv.get", bucket=self.name, key=key)
        return None if answer is None else Entry(answer["value"], answer["revision"])

    def put(self, key: str, value: str | bytes) -> int:
        """Writes an entry. Returns its revision."""
        return self._write("kv.put", key, value)

    def create(self, key: str, value: str | bytes) -> int:
        """Writes an entry unless there is one. Returns its revision."""
        return self._write("kv.create", key, value)

    def update(self, key: str, value: str | bytes, revision: int) -> int:
        """Writes an entry if it still has this revision. Returns the new one."""
        return self._write("kv.update", key, value, revision)

    def delete(self, key: str, revision: int | None = None) -> None:
        """Deletes an entry; with a revision, if it still has that."""
        call("kv.delete", bucket=self.name, key=key, revision=revision)

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Yields the keys that begin with this prefix."""
        return pages("kv.keys", "keys", str, bucket=self.name, prefix=prefix or None)

    def _write(self, name: str, key: str, value: str | bytes, revision: int | None = None) -> int:
        answer = call(name, bucket=self.name, key=key, value=data(value), revision=revision, ttl_ms=self._ttl)
        return int(answer["revision"])
