"""Makes a plugin of the engine and of an author's files. The engine's code is not looked at: only sections around it change."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PAGE = 1 << 16
#: The pages of a 32-bit memory.
PAGES_MAX = 1 << 16
CUSTOM, IMPORT, MEMORY, EXPORT, DATA, DATA_COUNT = 0, 2, 5, 7, 11, 12
#: The sections that describe the engine, and the plugin.
ENGINE_SECTION, PLUGIN_SECTION = "pcluster-engine", "pcluster"
#: How the entries of the engine are named, and what the exports of a task are named by.
ENTRIES = {"pcluster_run_": "pcluster_task:", "pcluster_each_": "pcluster_each:", "pcluster_load_": "pcluster_init:"}
#: Imports that only a plugin may have whose tasks list calls, and others of the same type in their place. Nothing calls them then.
WITHOUT_CALLS = {
    ("pcluster_v1", "call"): ("wasi_snapshot_preview1", "fd_write"),
    ("pcluster_v1", "call_read"): ("pcluster_v1", "context_read"),
}


class NotAnEngine(Exception):
    """The file is no engine, or one of another version."""


def unsigned(number: int) -> bytes:
    """Returns LEB128."""
    out = bytearray()
    while True:
        number, low = number >> 7, number & 0x7F
        out.append(low | (0x80 if number else 0))
        if not number:
            return bytes(out)


def signed(number: int) -> bytes:
    """Returns signed LEB128."""
    out = bytearray()
    while True:
        number, low = number >> 7, number & 0x7F
        is_over = number == (-1 if low & 0x40 else 0)
        out.append(low | (0 if is_over else 0x80))
        if is_over:
            return bytes(out)


def read_unsigned(data: bytes, at: int) -> tuple[int, int]:
    """Reads LEB128. Returns the number, and where it ends."""
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at


def read_name(data: bytes, at: int) -> tuple[str, int]:
    length, at = read_unsigned(data, at)
    return data[at : at + length].decode(), at + length


def name(text: str) -> bytes:
    return unsigned(len(text.encode())) + text.encode()


def sections(module: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields number and content of each section."""
    at = 8
    while at < len(module):
        number = module[at]
        length, at = read_unsigned(module, at + 1)
        yield number, module[at : at + length]
        at += length


def section(number: int, content: bytes) -> bytes:
    return bytes([number]) + unsigned(len(content)) + content


def about(engine: bytes) -> dict[str, int]:
    """Returns what the engine says of itself."""
    if engine[:4] == b"\0asm":
        for number, content in sections(engine):
            if number == CUSTOM and read_name(content, 0)[0] == ENGINE_SECTION:
                found: dict[str, int] = json.loads(content[read_name(content, 0)[1] :])
                if found["version"] == 1:
                    return found
    raise NotAnEngine("this pcluster package has no engine that it can use; install it anew")


def archive(files: Mapping[str, bytes]) -> bytes:
    """Returns files as one piece, as the engine unpacks them."""
    out = [struct.pack("<I", len(files))]
    for path, content in sorted(files.items()):
        out += [struct.pack("<II", len(path.encode()), len(content)), path.encode(), content]
    return b"".join(out)


def link(engine: bytes, files: Mapping[str, bytes], tasks: Sequence[Mapping[str, object]]) -> bytes:
    """Returns a plugin with these files and tasks. The plan in `pcluster.json` has the tasks in the same order."""
    known = about(engine)
    if len(tasks) > known["tasks"]:
        raise ValueError(f"{len(tasks)} tasks in one plugin; the most are {known['tasks']}")
    data = archive(files)
    out, place = [engine[:8]], 0
    has_calls = any(task.get("calls") for task in tasks)
    for number, content in sections(engine):
        if number == IMPORT and not has_calls:
            content = imported(content)
        elif number == MEMORY:
            content, place = grown(content, len(data))
        elif number == EXPORT:
            content = exported(content, [str(task["name"]) for task in tasks])
        elif number == DATA_COUNT:
            content = unsigned(read_unsigned(content, 0)[0] + 2)
        elif number == DATA:
            count, at = read_unsigned(content, 0)
            slot = struct.pack("<II", place, len(data))
            content = unsigned(count + 2) + content[at:] + segment(place, data) + segment(known["files"], slot)
        elif number == CUSTOM and read_name(content, 0)[0] == ENGINE_SECTION:
            continue
        out.append(section(number, content))
    lines = "".join(json.dumps(task, ensure_ascii=False) + "\n" for task in tasks)
    out.append(section(CUSTOM, name(PLUGIN_SECTION) + lines.encode()))
    return b"".join(out)


def imported(content: bytes) -> bytes:
    """Returns the import section without the calls of the node."""
    count, at = read_unsigned(content, 0)
    out = [unsigned(count)]
    for _ in range(count):
        module, at = read_name(content, at)
        field, at = read_name(content, at)
        if content[at] != 0:
            raise NotAnEngine("the engine imports something else than functions")
        end = read_unsigned(content, at + 1)[1]
        module, field = WITHOUT_CALLS.get((module, field), (module, field))
        out += [name(module), name(field), content[at:end]]
        at = end
    return b"".join(out)


def grown(content: bytes, size: int) -> tuple[bytes, int]:
    """Returns the memory section with room for more bytes at the end of the memory, and where that is."""
    count, at = read_unsigned(content, 0)
    flags = content[at]
    pages, at = read_unsigned(content, at + 1)
    if count != 1 or flags > 1:
        raise NotAnEngine("the engine has another kind of memory")
    needed = pages + -(-size // PAGE)
    if needed > PAGES_MAX // 2:
        raise ValueError(f"the files of the plugin have {size >> 20} MiB, which is too much")
    more = unsigned(max(needed, read_unsigned(content, at)[0])) if flags else b""
    return unsigned(1) + bytes([flags]) + unsigned(needed) + more, pages * PAGE


def exported(content: bytes, tasks: Sequence[str]) -> bytes:
    """Returns the export section with the first entries named after the tasks.

    The others keep their names: plugins of one engine export the same functions, so that a node compiles their code once.
    """
    count, at = read_unsigned(content, 0)
    kept = []
    for _ in range(count):
        export, at = read_name(content, at)
        start = at
        at = read_unsigned(content, at + 1)[1]
        prefix = next((prefix for prefix in ENTRIES if export.startswith(prefix)), None)
        if prefix is not None:
            number = int(export[len(prefix) :])
            if number < len(tasks):
                export = ENTRIES[prefix] + tasks[number]
        kept.append(name(export) + content[start:at])
    return unsigned(len(kept)) + b"".join(kept)


def segment(place: int, data: bytes) -> bytes:
    """Returns an active data segment."""
    i32_const, end = b"\x41", b"\x0b"
    return b"\0" + i32_const + signed(place) + end + unsigned(len(data)) + data
