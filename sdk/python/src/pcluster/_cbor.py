"""Reads and writes CBOR, for native workers and tests. In the sandbox the driver does it, with the same rules and words."""

from __future__ import annotations

import struct

from pcluster import _values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: The most values within each other.
DEPTH = 128
BREAK = 0xFF
OPEN = 31
UNSIGNED, NEGATIVE, BYTES, TEXT, LIST, MAP, TAG, SIMPLE = range(8)


def loads(data: bytes) -> Any:
    """Reads the one item that takes up all bytes."""
    if not data:
        raise ValueError("there is no data")
    reader = Reader(data)
    value = reader.value(0)
    if reader.at != len(data):
        raise ValueError("bytes follow it")
    return value


class Reader:
    """Reads values one after the other."""

    __slots__ = ("at", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, length: int) -> bytes:
        taken = self.data[self.at : self.at + length]
        if len(taken) < length:
            raise ValueError("the data ends too early")
        self.at += length
        return taken

    def head(self) -> tuple[int, int, int]:
        (first,) = self.take(1)
        major, info = first >> 5, first & 31
        if info < 24 or info == OPEN:
            return major, info, info
        if info > 27:
            raise ValueError("not valid CBOR")
        return major, info, int.from_bytes(self.take(1 << (info - 24)), "big")

    def is_over(self) -> bool:
        if self.data[self.at : self.at + 1] != bytes([BREAK]):
            return False
        self.at += 1
        return True

    def value(self, depth: int) -> Any:
        if depth > DEPTH:
            raise ValueError("nested too deeply")
        major, info, number = self.head()
        if major in (BYTES, TEXT):
            data = self.string(major, info, number)
            return data if major == BYTES else data.decode()
        if major == LIST:
            return self.list(None if info == OPEN else number, depth)
        if major == MAP:
            return self.map(None if info == OPEN else number, depth)
        if info == OPEN:
            raise ValueError("not valid CBOR")
        if major == UNSIGNED:
            return number
        if major == NEGATIVE:
            return -1 - number
        if major == TAG:
            return _values.tag(number, self.value(depth + 1))
        return simple(info, number)

    def string(self, major: int, info: int, number: int) -> bytes:
        if info != OPEN:
            return self.take(number)
        pieces = []
        while not self.is_over():
            piece, info, number = self.head()
            if piece != major or info == OPEN:
                raise ValueError("not valid CBOR")
            pieces.append(self.take(number))
        return b"".join(pieces)

    def claim(self, length: int) -> None:
        if length > len(self.data) - self.at:
            raise ValueError("the data ends too early")

    def list(self, length: int | None, depth: int) -> Any:
        if length is None:
            values = []
            while not self.is_over():
                values.append(self.value(depth + 1))
            return values
        self.claim(length)
        return [self.value(depth + 1) for _ in range(length)]

    def map(self, length: int | None, depth: int) -> Any:
        values = {}
        self.claim(length or 0)
        left = length or 0
        while left if length is not None else not self.is_over():
            key = self.value(depth + 1)
            values[key] = self.value(depth + 1)
            left -= 1
        return values


def simple(info: int, number: int) -> Any:
    if info in (20, 21):
        return info == 21
    if info in (22, 23):
        return None
    form = {25: ">e", 26: ">f", 27: ">d"}.get(info)
    if form is None:
        raise ValueError("a simple value that Python does not have")
    return struct.unpack(form, number.to_bytes(1 << (info - 24), "big"))[0]


def dumps(value: Any) -> bytes:
    """Writes one item."""
    out = bytearray()
    write(out, value, 0)
    return bytes(out)


def head(out: bytearray, major: int, number: int) -> None:
    major <<= 5
    if number < 24:
        out.append(major | number)
        return
    for info, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if number < 1 << (8 * size):
            out.append(major | info)
            out += number.to_bytes(size, "big")
            return


def string(out: bytearray, major: int, data: bytes) -> None:
    head(out, major, len(data))
    out += data


def integer(out: bytearray, value: int) -> None:
    major, number = (NEGATIVE, -1 - value) if value < 0 else (UNSIGNED, value)
    if number < 1 << 64:
        head(out, major, number)
    else:
        head(out, TAG, 3 if value < 0 else 2)
        string(out, BYTES, number.to_bytes((number.bit_length() + 7) // 8, "big"))


def write(out: bytearray, value: Any, depth: int) -> None:
    if depth > DEPTH:
        raise ValueError("nested too deeply")
    kind = type(value)
    if kind is str:
        string(out, TEXT, value.encode())
    elif kind is int:
        integer(out, value)
    elif kind is float:
        out += b"\xfb\x7f\xf8\0\0\0\0\0\0" if value != value else b"\xfb" + struct.pack(">d", value)
    elif value is None or kind is bool:
        out.append({None: 0xF6, True: 0xF5, False: 0xF4}[value])
    elif kind is dict:
        head(out, MAP, len(value))
        for key, each in value.items():
            write(out, key, depth + 1)
            write(out, each, depth + 1)
    elif kind is list or kind is tuple:
        head(out, LIST, len(value))
        for each in value:
            write(out, each, depth + 1)
    elif kind is bytes:
        string(out, BYTES, value)
    else:
        other(out, value, depth)


def other(out: bytearray, value: Any, depth: int) -> None:
    stands = _values.other(value)
    if type(stands) is tuple:
        number, inner = stands
        head(out, TAG, number)
        write(out, inner, depth + 1)
    else:
        write(out, stands[0], depth + 1)
