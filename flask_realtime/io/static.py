"""Static file rules: URL path to file, and file to HTTP response, without a web framework.

`StaticFiles.find` decides which file a path means, `StaticFiles.respond` what is answered. Both know no server: `wsgi`
carries the answer out for WSGI, and an ASGI shell does so with the same two calls.
"""

from __future__ import annotations

import logging
import mimetypes
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from werkzeug.http import http_date, is_resource_modified, parse_range_header
from werkzeug.security import safe_join

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

logger = logging.getLogger("flask_realtime.io")

BLOCK = 64 * 1024  # bytes read at a time; one socket buffer's worth
DEFAULT_TYPE = "application/octet-stream"

# The types that pages need are fixed here: Python's own table differs between its versions (.js, .woff2, .webp), and
# the operating system's table, which `mimetypes.guess_type` reads as well, differs between machines.
CONTENT_TYPES = {
    **mimetypes.MimeTypes().types_map[True],
    ".avif": "image/avif",
    ".css": "text/css",
    ".gif": "image/gif",
    ".html": "text/html",
    ".ico": "image/x-icon",
    ".jpg": "image/jpeg",
    ".js": "text/javascript",  # RFC 9239 makes application/javascript an obsolete alias
    ".json": "application/json",
    ".map": "application/json",
    ".mjs": "text/javascript",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
}


def content_type(filename: str) -> str:
    """Return the Content-Type that the name of a file stands for, with ``charset=utf-8`` where text has one."""
    kind = CONTENT_TYPES.get(os.path.splitext(filename)[1].lower(), DEFAULT_TYPE)
    # XML names its encoding in its first line, and a charset would overrule that (RFC 7303, 3.2).
    if kind.startswith("text/") and kind != "text/xml":
        return kind + "; charset=utf-8"
    return kind


class Found(NamedTuple):
    """The file that a path means."""

    filename: str
    content_type: str


class Response(NamedTuple):
    """What to answer. The caller must close the body, also when it doesn't iterate over it."""

    status: str
    headers: list[tuple[str, str]]
    body: Body


class Body:
    """The bytes of an answer, read from a file block by block.

    Args:
        file: Open and positioned at the first byte to send; closed by `close`. None for a body held in `text`.
        length: How many bytes to send at most.
        text: A short body that comes from no file.
    """

    __slots__ = ("_left", "_text", "file")

    def __init__(self, file: BinaryIO | None = None, length: int = 0, text: bytes = b"") -> None:
        self.file = file
        self._left = length
        self._text = text

    def __iter__(self) -> Iterator[bytes]:
        if self._text:
            yield self._text
        # A file that grows while it is sent must not exceed its Content-Length.
        while self.file is not None and self._left > 0:
            block = self.file.read(min(BLOCK, self._left))
            if not block:
                return
            self._left -= len(block)
            yield block

    def close(self) -> None:
        """Close the file, if there is one."""
        if self.file is not None:
            self.file.close()


class _Rule(NamedTuple):
    filename: str
    content_type: str | None = None

    @classmethod
    def read(cls, url: str, target: str | Mapping[str, str]) -> _Rule:
        if isinstance(target, (str, os.PathLike)):
            return cls(os.fspath(target))
        if not isinstance(target, Mapping) or "filename" not in target:
            raise ValueError(
                f"static_files[{url!r}] must be a filename or a dict with 'filename' and maybe 'content_type', "
                f"got {target!r}"
            )
        return cls(os.fspath(target["filename"]), target.get("content_type"))


class StaticFiles:
    """The rules that `static_files` stands for in `WSGIApp` and `ASGIApp`.

    A rule maps a URL path to a file, or to a directory and all below it. The path itself counts first, then its longest
    parent. The rule of the empty path names the file that a directory's URL gets when it ends in a slash
    (``index.html`` otherwise). Nothing outside of a mapped directory is ever served, whatever the URL says and wherever
    a symbolic link inside leads.

    Args:
        rules: URL path to filename, or to a dict with ``filename`` and optionally ``content_type``. Relative filenames
            start at the current directory.

    Raises:
        ValueError: When a rule is neither.

    .. versionadded:: 0.1
    """

    def __init__(self, rules: Mapping[str, str | Mapping[str, str]]) -> None:
        read = {url: _Rule.read(url, target) for url, target in rules.items()}
        self._default = read.pop("", _Rule("index.html"))
        self._exact = read
        parents: dict[str, _Rule] = {}
        for url in sorted(read):  # '/static' comes, and counts, before '/static/'
            parents.setdefault(url.removesuffix("/") + "/", read[url])
        # Rules are few and a path may be all slashes, so the rules are walked and not the path's parents.
        self._parents = sorted(parents.items(), key=lambda item: len(item[0]), reverse=True)

    # Deciding

    def find(self, path: str) -> Found | None:
        """Decide which file a path means.

        Args:
            path: Decoded URL path, without the query.

        Returns:
            The file, which exists and is a regular one, or None when no rule leads to one.
        """
        path = path or "/"
        # Some systems take a backslash for a separator. No system allows NUL.
        if "\0" in path or "\\" in path:
            return None
        try:
            if path in self._exact:
                return self._exactly(path, self._exact[path])
            for parent, rule in self._parents:
                if path.startswith(parent):
                    return self._below(rule, path[len(parent) :])
        except ValueError:  # a character that the file system's encoding doesn't have
            return None
        return None

    def _exactly(self, path: str, rule: _Rule) -> Found | None:
        if os.path.isfile(rule.filename):
            return Found(rule.filename, rule.content_type or content_type(rule.filename))
        if path.endswith("/") or rule.filename.endswith(("/", os.sep)):
            return self._below(rule, "")
        return None

    def _below(self, rule: _Rule, rest: str) -> Found | None:
        kind = rule.content_type
        if not rest or rest.endswith("/"):
            rest += self._default.filename
            kind = self._default.content_type or kind
        joined = safe_join(rule.filename, rest)
        if joined is None:
            return None
        root, filename = os.path.realpath(rule.filename), os.path.realpath(joined)
        # safe_join looks at names only; a symbolic link may still lead out.
        if os.path.commonpath((root, filename)) != root or not os.path.isfile(filename):
            return None
        # The type belongs to the name that was asked for, not to what a link points to.
        return Found(filename, kind or content_type(joined))

    # Answering

    def respond(self, found: Found, method: str, header: Callable[[str], str | None]) -> Response:
        """Make the answer to a request for a file.

        Args:
            found: What `find` returned.
            method: The request's method, in upper case.
            header: Returns the value of a request header, given its name (``"If-None-Match"``), or None.

        Returns:
            The response. Its body reads a file: in asyncio, iterate over it in a thread.

        Source: RFC 9110, 13 (conditional requests) and 14 (ranges).
        """
        if method not in ("GET", "HEAD"):
            return _plain("405 METHOD NOT ALLOWED", ("Allow", "GET, HEAD"))
        try:
            file = open(found.filename, "rb")  # noqa: SIM115 - the body closes it
        except OSError as error:
            logger.warning("can't open static file %s: %s", found.filename, error)
            return _plain("404 NOT FOUND")
        try:
            return self._answer(found, file, method, header)
        except BaseException:
            file.close()
            raise

    def _answer(self, found: Found, file: BinaryIO, method: str, header: Callable[[str], str | None]) -> Response:
        stat = os.fstat(file.fileno())
        size = stat.st_size
        etag = f'"{stat.st_mtime_ns:x}-{size:x}"'
        modified = datetime.fromtimestamp(int(stat.st_mtime), timezone.utc)
        headers = [
            ("ETag", etag),
            ("Last-Modified", http_date(modified)),
            ("Cache-Control", "no-cache"),  # keep it, but ask: an edited file shows at once, as with Flask's own
            ("Accept-Ranges", "bytes"),
        ]
        if not is_resource_modified(_environ(header, "If-None-Match", "If-Modified-Since"), etag, None, modified):
            file.close()
            return Response("304 NOT MODIFIED", headers, Body())
        headers.append(("Content-Type", found.content_type))
        start, stop = 0, size
        part = self._range(size, etag, modified, header) if method == "GET" else None
        if part is not None:
            start, stop = part
            if start >= stop:
                file.close()
                return _plain("416 RANGE NOT SATISFIABLE", ("Content-Range", f"bytes */{size}"))
            headers.append(("Content-Range", f"bytes {start}-{stop - 1}/{size}"))
            file.seek(start)
        headers.append(("Content-Length", str(stop - start)))
        if method == "HEAD":
            file.close()
            return Response("200 OK", headers, Body())
        return Response("200 OK" if part is None else "206 PARTIAL CONTENT", headers, Body(file, stop - start))

    @staticmethod
    def _range(size: int, etag: str, modified: datetime, header: Callable[[str], str | None]) -> tuple[int, int] | None:
        """Return the part asked for as ``(start, stop)``, None for the whole, ``start >= stop`` when it isn't there."""
        wanted = parse_range_header(header("Range"))
        # Several ranges would need a multipart body; a server may ignore any Range (RFC 9110, 14.2).
        if wanted is None or wanted.units != "bytes" or len(wanted.ranges) != 1:
            return None
        if header("If-Range") is not None and is_resource_modified(
            _environ(header, "Range", "If-Range"), etag, None, modified, ignore_if_range=False
        ):
            return None
        start, stop = wanted.ranges[0]
        if start < 0:  # the last bytes, or all when there are fewer
            start = max(0, size + start)
        return start, size if stop is None else min(stop, size)

    # Carrying it out

    def wsgi(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes] | None:
        """Answer a WSGI request when it is for a file.

        Returns:
            The body, or None when no rule leads to a file; ``start_response`` wasn't called then.

        Source: PEP 3333, "Optional Platform-Specific File Handling".
        """
        found = self.find(environ.get("PATH_INFO", "").encode("latin-1").decode("utf-8", "replace"))
        if found is None:
            return None
        status, headers, body = self.respond(
            found, environ["REQUEST_METHOD"], lambda name: environ.get("HTTP_" + name.upper().replace("-", "_"))
        )
        start_response(status, headers)
        # Only whole files: not each server's wrapper starts at the file's position or stops at Content-Length.
        if body.file is not None and status == "200 OK" and "wsgi.file_wrapper" in environ:
            wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](body.file, BLOCK)
            return wrapped
        return body


def _plain(status: str, *headers: tuple[str, str]) -> Response:
    """Return a response that says its own status in its body."""
    text = status.encode()
    common = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(text)))]
    return Response(status, [*headers, *common], Body(text=text))


def _environ(header: Callable[[str], str | None], *names: str) -> WSGIEnvironment:
    """Return these headers of the request in the form that Werkzeug's functions take."""
    return {"HTTP_" + name.upper().replace("-", "_"): header(name) for name in names}
