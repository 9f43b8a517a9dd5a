"""HTTP/1.1 requests as ordinary clients write them: bytes to a head, or to nothing.

What this doesn't understand isn't refused here: whoever asked leaves the bytes to a whole HTTP server. So there is one
way to write each thing, and no guess.
"""

from __future__ import annotations

import re
from typing import NamedTuple

LARGEST = 8192
"""Bytes of a head that is understood."""

_FIRST = re.compile(r"(GET|POST) (/[!\"$-~]*) HTTP/1\.1")
_FIELD = re.compile(r"([!#$%&'*+.^`|~0-9A-Za-z-]+):[\t ]*((?:[!-~\x80-\xff]+(?:[\t ]+[!-~\x80-\xff]+)*)?)[\t ]*")
# They change how the rest of the connection is to be read, or what the answer has to be.
_OTHERS = frozenset(("expect", "http2-settings", "keep-alive", "proxy-connection", "te", "trailer", "upgrade"))
_LENGTH = re.compile(r"0|[1-9][0-9]{0,11}")

Fields = dict[str, str]
"""The fields of a head, by their names in small letters."""


class Head(NamedTuple):
    """The head of a request.

    Attributes:
        method: ``GET`` or ``POST``.
        path: Of the target, as it was sent.
        query: Of the target, as it was sent.
        fields: Each name stands once.
        size: Bytes up to the body.
        length: Bytes of the body.
        last: Whether the client wants the connection closed after the answer.
    """

    method: str
    path: str
    query: str
    fields: Fields
    size: int
    length: int
    last: bool


class Heads:
    """Reads the heads of one connection. They resemble each other, so the fields of the last one are kept."""

    __slots__ = ("_block", "_fields", "_length")

    def __init__(self) -> None:
        self._block, self._fields, self._length = b"", Fields(), -1

    def read(self, data: bytes) -> Head | None:
        """Return the head that ``data`` begins with; None when it isn't there yet, or isn't an ordinary one.

        Source: RFC 9112, 2 to 6; of what it allows this takes less.
        """
        end = data.find(b"\r\n\r\n", 0, LARGEST)
        if end < 0:
            return None
        begin = data.index(b"\r\n")
        first = _FIRST.fullmatch(data[:begin].decode("latin-1"))
        if first is None:
            return None
        block = data[begin:end]
        if block != self._block:
            fields = _fields(block)
            if fields is None:
                return None
            length = fields.get("content-length", "0")
            if not _LENGTH.fullmatch(length):
                return None
            self._block, self._fields, self._length = block, fields, int(length)
        method, target = first[1], first[2]
        if "content-length" not in self._fields if method == "POST" else self._length:
            return None  # a body that nobody announced, or that nobody expects
        path, _, query = target.partition("?")
        last = self._fields.get("connection", "").lower() == "close"
        return Head(method, path, query, self._fields, end + 4, self._length, last)


def _fields(block: bytes) -> Fields | None:
    fields: Fields = {}
    for line in block.decode("latin-1").split("\r\n")[1:]:
        match = _FIELD.fullmatch(line)
        if match is None:
            return None
        name = match[1].lower()
        if name in fields or name in _OTHERS or name.startswith("transfer"):
            return None
        fields[name] = match[2]
    if fields.get("connection", "").lower() not in ("", "close", "keep-alive") or not fields.get("host"):
        return None
    return fields
