"""Objects of NATS object stores that the stage is granted: `objects.Store("models").get("small")`."""

from __future__ import annotations

from pcluster._call import call, call_for, data, pages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class Object:
    """An object, or a part of one. `data` is `None` if it was only listed or written."""

    def __init__(self, name: str, size: int, digest: str, data: bytes | None = None) -> None:
        self.name = name
        #: The size of the whole object in bytes.
        self.size = size
        #: The digest of the whole object: `SHA-256=` and base64.
        self.digest = digest
        self.data = data

    def __repr__(self) -> str:
        return f"Object({self.name!r}, {self.size} bytes)"


class Store:
    """A store."""

    def __init__(self, name: str) -> None:
        self.name = name

    def get(self, name: str, start: int | None = None, length: int | None = None) -> Object | None:
        """Returns an object, or the bytes of it from `start` on. `None` if there is none."""
        answer = call_for("objects.get", **{"store": self.name, "name": name, "from": start, "length": length})
        return None if answer is None else Object(name, answer["size"], answer["digest"], answer["data"])

    def put(self, name: str, content: str | bytes) -> Object:
        """Writes an object. Readers see the one before until all of this one is stored."""
        answer = call("objects.put", **{"store": self.name, "name": name, "data": data(content)})
        return Object(name, answer["size"], answer["digest"])

    def list(self, prefix: str = "") -> Iterator[Object]:
        """Yields the objects whose names begin with this prefix, without their bytes."""
        for found in pages("objects.list", "objects", lambda each: str(each["name"]), store=self.name, prefix=prefix or None):
            yield Object(found["name"], found["size"], found["digest"])
