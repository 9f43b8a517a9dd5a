"""SocketIOTestClient: a client in memory, over the real server.

It opens a session with a transport that keeps what is written, and its handlers run in the caller's thread: when `emit`
returns, the event has been handled. The server isn't changed; real clients can be served beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import flask
from flask.testing import EnvironBuilder

from .errors import ConnectionRefusedError
from .functions import complain
from .protocol.engineio.session import CLIENT_DISCONNECT
from .protocol.socketio.packets import (
    ACK,
    CONNECT,
    CONNECT_ERROR,
    DISCONNECT,
    EVENT,
    Limits,
    Packet,
)
from .typing import Done, Frame, Habit, Owner, Runtime

if TYPE_CHECKING:
    from .extension import SocketIO

_LIMITS = Limits(attachments=1 << 20, attachment_bytes=1 << 40, depth=500, id_digits=20, memory=1 << 40)


class SocketIOTestClient:
    """A client for tests.

    Args:
        app: The Flask application.
        socketio: Its extension.
        namespace: To connect to, ``"/"`` by default.
        query_string: Of the handshake's URL, with or without the question mark.
        headers: Of the handshake, as Flask's test client takes them.
        auth: What the connect handler gets.
        flask_test_client: Its cookies are used for the handshake, and with them the HTTP session.

    Attributes:
        eio_sid: Id of the connection.
        connected: Whether it is connected, by namespace.
        refusals: What the server answered to a connect that it refused, by namespace: ``{"message": …, "data": …}``.
        sids: The client's sid, by namespace.

    .. versionadded:: 0.1.0
    """

    def __init__(
        self,
        app: flask.Flask,
        socketio: SocketIO,
        namespace: str | None = None,
        query_string: str | None = None,
        headers: Any = None,
        auth: Any = None,
        flask_test_client: Any = None,
    ) -> None:
        self.app, self.socketio, self.flask_test_client = app, socketio, flask_test_client
        self.queue: list[dict[str, Any]] = []
        self.acks: dict[tuple[str, int], list[Any]] = {}
        self.connected: dict[str, bool] = {}
        self.refusals: dict[str, Any] = {}
        self.sids: dict[str, str] = {}
        self._answers: dict[tuple[str, str], Callable[..., Any]] = {}
        self._number = 0
        assert socketio.server is not None, "SocketIO has no application yet: call init_app(app) first"
        self._server = socketio.server
        self._server.begin()
        codec = socketio.core.codec
        self._codec = codec
        self._decoder = codec.decoder(_LIMITS, from_server=True)
        self._server.core.send_at_once()
        self._runtime = _Inline(self._server.eio.runtime)
        self._open(query_string, headers)
        self.connect(namespace, auth=auth)

    def _open(self, query_string: str | None, headers: Any) -> None:
        engine = self._server.eio.engine
        session = engine.prepare(self._environ(query_string, headers))
        session.runtime = self._runtime
        self._session = session
        self.eio_sid = session.sid
        engine.on_connect(session)
        engine.accept(session)
        session.polling = None
        session.transport = _Memory(self._written)

    def _environ(self, query_string: str | None, headers: Any) -> dict[str, Any]:
        """Make the handshake's environ, with the cookies and the environ of the Flask test client, if one was given."""
        client = self.flask_test_client
        path = self.socketio.sockio_mw.path if self.socketio.sockio_mw is not None else "/socket.io"
        builder = EnvironBuilder(
            self.app,
            path=path.rstrip("/") + "/",
            query_string=(query_string or "").removeprefix("?"),
            headers=headers,
            environ_base={"REMOTE_ADDR": "127.0.0.1"} if client is None else client.environ_base,
        )
        try:
            environ: dict[str, Any] = builder.get_environ()
        finally:
            builder.close()
        environ["flask.app"] = self.app
        if client is not None:
            # The one way to them that makes no request, which would end what a test keeps open by ``with client``.
            client._add_cookies_to_wsgi(environ)
        return environ

    # What the field's tests use.

    def is_connected(self, namespace: str | None = None) -> bool:
        """Whether the client is connected to a namespace."""
        return self.connected.get(namespace or "/", False)

    def connect(
        self, namespace: str | None = None, query_string: str | None = None, headers: Any = None, auth: Any = None
    ) -> None:
        """Connect to a further namespace, or again to one that was left.

        Args:
            namespace: ``"/"`` by default.
            query_string: A new handshake is made when this or ``headers`` is given and nothing is connected.
            headers: Likewise.
            auth: What the connect handler gets.
        """
        namespace = namespace or "/"
        if self._session.closed or ((query_string or headers) and not any(self.connected.values())):
            self._open(query_string, headers)
        elif query_string or headers:
            # All namespaces share one handshake; a test that gives another one gets it for what it connects from now
            # on.
            session = self._session
            session.environ.clear()
            session.environ.update(self._environ(query_string, headers))
        self.refusals.pop(namespace, None)
        self._deliver(Packet(CONNECT, namespace, None, auth or None))

    def disconnect(self, namespace: str | None = None) -> None:
        """Leave a namespace.

        Raises:
            RuntimeError: The client isn't connected to it.
        """
        namespace = namespace or "/"
        if not self.is_connected(namespace):
            raise RuntimeError("not connected")
        self._deliver(Packet(DISCONNECT, namespace))
        self.connected[namespace] = False

    def close(self) -> None:
        """End the connection and with it all namespaces, as a browser does whose page is left."""
        self._session.close(CLIENT_DISCONNECT)
        self.connected.clear()
        self._runtime.raise_error()

    def emit(self, event: str, *args: Any, callback: bool = False, namespace: str | None = None, **unknown: Any) -> Any:
        """Send an event; it has been handled when this returns.

        Args:
            event: Its name.
            *args: Its arguments.
            callback: Whether to ask for an acknowledgement.
            namespace: ``"/"`` by default.

        Returns:
            The acknowledgement when one was asked for: its value, a list of several, ``[]`` for none; None when the
            server sent no acknowledgement.

        Raises:
            Exception: What the handler raised.
            RuntimeError: The client isn't connected to the namespace.
            TypeError: A value can't be sent.
        """
        complain("SocketIOTestClient.emit", unknown)
        namespace = namespace or "/"
        if not self.is_connected(namespace):
            raise RuntimeError("not connected")
        number = None
        if callback:
            self._number += 1
            number = self._number
        self._deliver(Packet(EVENT, namespace, number, [event, *args]))
        if number is None:
            return None
        answer = self.acks.pop((namespace, number), None)
        return answer[0] if answer is not None and len(answer) == 1 else answer

    def send(
        self, data: Any, json: bool = False, callback: bool = False, namespace: str | None = None, **unknown: Any
    ) -> Any:
        """Send the event ``"message"``, or ``"json"`` when ``json`` is true; see `emit`."""
        return self.emit("json" if json else "message", data, callback=callback, namespace=namespace, **unknown)

    def get_received(self, namespace: str | None = None) -> list[dict[str, Any]]:
        """Return what came in a namespace since the last call.

        Returns:
            Dicts with ``name``, ``namespace`` and ``args``: a list, but for ``"message"`` and ``"json"`` the first
            argument.

        Raises:
            RuntimeError: The client isn't connected to the namespace.
        """
        namespace = namespace or "/"
        if not self.is_connected(namespace):
            raise RuntimeError("not connected")
        received = [event for event in self.queue if event["namespace"] == namespace]
        self.queue = [event for event in self.queue if event["namespace"] != namespace]
        return received

    def answer(self, event: str, function: Callable[..., Any], namespace: str | None = None) -> None:
        """Answer when the server asks for an acknowledgement, in ``emit(callback=…)`` or ``call()``.

        Args:
            event: Of this event.
            function: Gets the event's arguments; returns the acknowledgement: None for none, a tuple for several
                values.
            namespace: ``"/"`` by default.
        """
        self._answers[namespace or "/", event] = function

    # Between the client and the server.

    def _deliver(self, packet: Packet) -> None:
        for message in self._codec.encode(packet):
            self._server.core.received(self._session, message)
        self._runtime.raise_error()

    def _written(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            message = frame.message
            if isinstance(message, str):
                if message[:1] != "4":
                    continue  # the heartbeat of Engine.IO
                message = message[1:]
            packet = self._decoder.feed(message)
            if packet is not None:
                self._received(packet)

    def _received(self, packet: Packet) -> None:
        kind, namespace, number, data = packet
        if kind == CONNECT:
            self.connected[namespace] = True
            self.sids[namespace] = data["sid"]
        elif kind == CONNECT_ERROR:
            self.connected[namespace] = False
            self.refusals[namespace] = data
        elif kind == DISCONNECT:
            self.connected[namespace] = False
            if data is not None:
                self.refusals[namespace] = data
        elif kind == ACK:
            assert number is not None
            self.acks[namespace, number] = data
        else:
            name, *args = data
            plain = name in ("message", "json")
            shown: Any = (args[0] if args else None) if plain else args
            self.queue.append({"name": name, "args": shown, "namespace": namespace})
            function = self._answers.get((namespace, name))
            if number is not None and function is not None:
                result = function(*args)
                values = [] if result is None else list(result) if isinstance(result, tuple) else [result]
                for message in self._codec.encode(Packet(ACK, namespace, number, values)):
                    self._server.core.received(self._session, message)


class _Memory:
    """A transport that hands everything to a function."""

    def __init__(self, written: Callable[[Sequence[Frame]], object]) -> None:
        self._written = written

    def write(self, frames: Sequence[Frame]) -> None:
        self._written(frames)

    def close(self, code: int = 1000, reason: str = "") -> None:
        pass

    def pause(self, paused: bool) -> None:
        pass


class _Never:
    """A timer that never fires."""

    def cancel(self) -> None:
        pass


class _Inline:
    """A runtime that runs handlers at once, in the caller's thread, and keeps what they raise; else another's."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._error: BaseException | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime, name)

    def call_later(self, seconds: float, function: Callable[[], object]) -> _Never:
        """Set no timer: a test is over before, and no thread has to keep the time for it."""
        return _Never()

    def run(
        self,
        owner: Owner,
        handler: Callable[..., Any],
        args: Sequence[Any],
        done: Done,
        token: Any,
        urgent: bool = False,
        habit: Habit | None = None,
        size: int = 0,
    ) -> None:
        try:
            result = handler(*args)
        except Exception as error:
            if not isinstance(error, (ConnectionRefusedError, ConnectionRefusedError.__bases__[1])):
                self._error = self._error or error
            done(token, None, error)
        else:
            problem = done(token, result, None)
            if isinstance(problem, BaseException):
                self._error = self._error or problem

    def raise_error(self) -> None:
        """Raise the first error that a handler has raised."""
        error, self._error = self._error, None
        if error is not None:
            raise error
