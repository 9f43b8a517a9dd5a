"""Socket.IO for WSGI programs, without Flask: `Server`, `Namespace`, and `WSGIApp`."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from . import engineio
from . import errors as exceptions
from .engineio import Reason, choose_logger
from .errors import (
    BadNamespaceError,
    ClientGoneError,
    ClusterTimeoutError,
    ConfigurationError,
    ConnectionError,
    ConnectionRefusedError,
    DisconnectedError,
    SocketIOError,
    TimeoutError,
)
from .io import gunicorn
from .io.wsgi import keep
from .managers import ASKING, KafkaManager, KombuManager, Manager, PubSubManager, RedisManager, ZmqManager
from .protocol.engineio.session import Session
from .protocol.socketio.client import Client as _Client
from .protocol.socketio.cluster import Cluster
from .protocol.socketio.core import Core, Settings, Waiter, arguments, as_sids
from .protocol.socketio.dispatch import Handler, fit
from .protocol.socketio.packets import Codec, Limits, TextCodec
from .typing import Task

__all__ = [
    "BadNamespaceError",
    "ConnectionError",
    "ConnectionRefusedError",
    "ClusterTimeoutError",
    "DisconnectedError",
    "KafkaManager",
    "KombuManager",
    "Manager",
    "Middleware",
    "Namespace",
    "PubSubManager",
    "RedisManager",
    "Server",
    "SocketIOError",
    "TimeoutError",
    "WSGIApp",
    "ZmqManager",
    "exceptions",
]

SERVER_OPTIONS = (
    "serializer",
    "json",
    "async_handlers",
    "always_connect",
    "namespaces",
    "connect_timeout",
    "max_attachments",
    "max_json_depth",
    "max_namespaces",
    "max_pending_acks",
    *engineio.RUNTIME_OPTIONS,
)


SUBSCRIBING = 3.0
"""Seconds that the first clients wait for the message queue."""


class Server:
    """A Socket.IO server.

    Args:
        client_manager: Of the message queue that connects several processes, like a `RedisManager`; None for one
            process.
        logger: True to print what happens, or a logger of your own.
        serializer: ``"default"``, ``"msgpack"``, or an object with the methods of
            `flask_realtime.protocol.socketio.packets.Codec`.
        json: A module or object with ``dumps`` and ``loads``, for this server alone.
        async_handlers: Whether a slow handler of a client lets its next one start; they start in their order anyway.
        always_connect: Whether clients are told that they are connected before the connect handler has run.
        namespaces: Accepted besides those with handlers, ``["/"]`` by default; ``"*"`` accepts any.
        connect_timeout: Seconds that a connection has to join its first namespace.
        max_attachments: Binary parts of one packet from a client.
        max_json_depth: Levels of lists and objects in a packet from a client.
        max_namespaces: That one connection may join.
        max_pending_acks: Acknowledgements that may be missing from one client.
        engineio_logger: As ``logger``, for the layer below.
        **options: Those of `flask_realtime.engineio.Server`.

    Raises:
        ConfigurationError: An option has a value that can't work; it is a ValueError too.

    .. versionadded:: 0.1.0
    """

    reason = Reason
    reserved_events: ClassVar[list[str]] = ["connect", "disconnect"]

    def __init__(
        self,
        client_manager: Any = None,
        logger: bool | logging.Logger = False,
        serializer: str | Codec = "default",
        json: Any = None,
        async_handlers: bool = True,
        always_connect: bool = False,
        namespaces: str | Collection[str] | None = None,
        *,
        connect_timeout: float = 45,
        max_attachments: int = 10,
        max_json_depth: int = 64,
        max_namespaces: int = 32,
        max_pending_acks: int = 1000,
        engineio_logger: bool | logging.Logger = False,
        _invoke: Callable[[_Client, Handler, Any, Sequence[Any]], Any] | None = None,
        _default: Callable[[Any], Any] | None = None,
        _adapt: Callable[[Callable[..., Any], str, str], Callable[..., Any]] | None = None,
        **options: Any,
    ) -> None:
        self.manager: Manager = Manager() if client_manager is None else client_manager
        if not isinstance(self.manager, Manager):
            raise ConfigurationError(f"client_manager: expected a manager of this package, got {client_manager!r}")
        self.logger = choose_logger(logger, "flask_realtime.socketio")
        self.eio = engineio.Server(
            logger=engineio_logger,
            json=json,
            async_handlers=async_handlers,
            _hooks=(self._opened, self._closed),
            **options,
        )
        self.async_mode = self.eio.async_mode
        self.async_handlers = async_handlers
        accepted = ("/",) if namespaces is None else (namespaces,) if isinstance(namespaces, str) else tuple(namespaces)
        limits = Limits(
            attachments=max_attachments,
            attachment_bytes=self.eio.options.max_http_buffer_size,
            depth=max_json_depth,
            memory=2 * self.eio.options.max_http_buffer_size + 4_000_000,
        )
        settings = Settings(accepted, always_connect, connect_timeout, max_namespaces, max_pending_acks, limits=limits)
        self.core = Core(
            self.eio.runtime,
            _codec(serializer, json, _default),
            _invoke or self._invoke,
            settings,
            self.logger,
            self.eio.engine.counters,
            time.perf_counter,
            not self.eio.options.websocket_compression,
        )
        self.eio.engine.on_message = self.core.received
        self.eio.on_stop, self.eio.before_close = self.core.stop, self.core.flush
        self._adapt = _adapt
        self.environ: dict[str, dict[str, Any]] = {}
        self.bus_codec = TextCodec(json, _default)
        self.manager.set_server(self)
        self.reach = self.manager.reach
        """Whom emits and rooms are about: the clients of this process, or those of all."""
        self.eio.after_stop = self.manager.end
        self._begun = 0  # the process in which the manager has begun
        if gunicorn.worker() is not None:
            self.manager.begin()  # this process is the one that serves; a broker that is away is told of now

    # What the floor below calls.

    def _opened(self, session: Session) -> None:
        session.environ = self.environ[session.sid] = keep(session.environ)
        self.core.opened(session)

    def _closed(self, session: Session, reason: str) -> None:
        self.environ.pop(session.sid, None)
        self.core.closed(session, reason)

    def _invoke(self, client: _Client, handler: Handler, event: Any, args: Sequence[Any]) -> Any:
        """Call a handler with the arguments of this face: the sid comes first."""
        least = 1
        if event == "connect":
            args, least = (client.session.environ, args[0] or None), 2
        args = (client.sid, *args)
        if handler.any_namespace:
            args, least = (client.namespace, *args), least + 1
        if handler.target is not None:
            return handler.target.trigger_event(event, *args)
        if handler.any_event:
            args = (event, *args)
        elif event in self.reserved_events:
            args = fit(handler.call, args, least)
        return handler.call(*args)

    # Handlers.

    @property
    def handlers(self) -> dict[str, dict[str, Callable[..., Any]]]:
        """Functions by namespace and event."""
        return self.core.handlers.functions

    @property
    def namespace_handlers(self) -> dict[str, Any]:
        """Class-based namespaces by name."""
        return self.core.handlers.targets

    @property
    def namespaces(self) -> Collection[str]:
        """Accepted besides those with handlers."""
        return self.core.settings.namespaces

    def on(
        self, event: str, handler: Callable[..., Any] | None = None, namespace: str | None = None
    ) -> Callable[..., Any]:
        """Register a handler; a decorator when no handler is given, which returns the function itself.

        Args:
            event: Its name; ``"*"`` for all that have no handler of their own.
            handler: Called as connect(sid, environ[, auth]), disconnect(sid[, reason]), event(sid, *args); for ``"*"``
                the event's name comes first, for namespace ``"*"`` the namespace's before the sid.
            namespace: ``"/"`` by default; ``"*"`` for all.
        """

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            adapted = function if self._adapt is None else self._adapt(function, event, namespace or "/")
            self.core.handlers.add(event, adapted, namespace or "/")
            return function

        return register if handler is None else register(handler)

    def event(self, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        """Register a function as the handler of the event of its name: ``@sio.event`` or with ``namespace=``."""
        if len(args) == 1 and not kwargs and callable(args[0]):
            return self.on(args[0].__name__, args[0])

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            return self.on(function.__name__, function, *args, **kwargs)

        return register

    def register_namespace(self, namespace_handler: Namespace) -> None:
        """Register a class-based namespace.

        Raises:
            ValueError: It isn't an instance of `Namespace`.
        """
        if not isinstance(namespace_handler, Namespace):
            raise ValueError(f"Not a namespace instance: expected a Namespace, got {namespace_handler!r}")
        namespace_handler._set_server(self)
        self.core.handlers.add_target(namespace_handler, namespace_handler.namespace)

    def on_queue_gap(self, handler: Callable[[int], Any]) -> Callable[[int], Any]:
        """Register who is told when messages of other processes were missed; a decorator, without parentheses.

        Without a message queue nobody ever is.

        Args:
            handler: Called with their number, as often as some are missing. It is 0 when the process could hear
                nothing for a while and the broker keeps nothing, so that nobody knows. What it has to do with the
                clients of this process (their pages may have to load anew what they show) is up to the application:
                ``emit(..., ignore_queue=True)``.
        """
        self.manager.on_queue_gap(handler)
        return handler

    # Emitting.

    def emit(
        self,
        event: str,
        data: Any = None,
        to: Any = None,
        room: Any = None,
        skip_sid: Any = None,
        namespace: str | None = None,
        callback: Callable[..., Any] | None = None,
        ignore_queue: bool = False,
    ) -> None:
        """Send an event. Any thread may call this, with or without a handler around it; it never waits for a client.

        Args:
            event: Its name.
            data: None for no argument, a tuple for several, anything else for one: str, bytes, list, dict, numbers.
            to: A sid or room, or a list, tuple or set of them. None, and only None, means everybody.
            room: The same, when ``to`` is None.
            skip_sid: A sid, or several, that don't get it.
            namespace: ``"/"`` by default.
            callback: Called with the values that each recipient acknowledges with.
            ignore_queue: Whether only clients of this process are meant.

        Raises:
            TypeError: A value can't be sent.
            ValueError: The event's name is reserved.
        """
        to = room if to is None else to
        reach = self.core if ignore_queue else self.reach
        reach.emit(event, arguments(data), namespace or "/", to, as_sids(skip_sid), callback)

    def send(
        self,
        data: Any,
        to: Any = None,
        room: Any = None,
        skip_sid: Any = None,
        namespace: str | None = None,
        callback: Callable[..., Any] | None = None,
        ignore_queue: bool = False,
    ) -> None:
        """Send the event ``"message"``; see `emit`."""
        self.emit("message", data, to, room, skip_sid, namespace, callback, ignore_queue)

    def call(
        self,
        event: str,
        data: Any = None,
        to: Any = None,
        sid: Any = None,
        namespace: str | None = None,
        timeout: float | None = 60,
        ignore_queue: bool = False,
    ) -> Any:
        """Send an event to one client and wait for its acknowledgement.

        Args:
            event: Its name.
            data: See `emit`.
            to: The client's sid.
            sid: The same, when ``to`` is None.
            namespace: ``"/"`` by default.
            timeout: Seconds to wait; None for ever.
            ignore_queue: Whether the client is one of this process.

        Returns:
            None when the client acknowledged without a value, the value, or a tuple of several.

        Raises:
            ValueError: No client was named.
            TimeoutError: No answer came in time, or there is no such client.
            ClientGoneError: The client went away meanwhile; it is a TimeoutError too.
        """
        target = sid if to is None else to
        if target is None:
            raise ValueError("Cannot use call() to broadcast: expected a sid in to=")
        reach = self.core if ignore_queue else self.reach
        return call(self.core, reach, event, arguments(data), namespace or "/", target, timeout)

    # Rooms and sessions.

    def _client(self, sid: str, namespace: str | None) -> _Client:
        client = self.core.client(sid, namespace or "/")
        if client is None:
            raise KeyError(f"no client {sid!r} in namespace {namespace or '/'!r}")
        return client

    def enter_room(self, sid: str, room: Hashable, namespace: str | None = None) -> None:
        """Put a client into a room, which is made when it doesn't exist.

        With a message queue the client may be one of another process; then nothing is raised.

        Raises:
            KeyError: There is no such client.
            ValueError: Nobody ever joined the namespace.
        """
        self.reach.enter_room(sid, room, namespace or "/")

    def leave_room(self, sid: str, room: Hashable, namespace: str | None = None) -> None:
        """Take a client out of a room; nothing happens when it isn't there."""
        self.reach.leave_room(sid, room, namespace or "/")

    def close_room(self, room: Hashable, namespace: str | None = None) -> None:
        """Take everybody out of a room; nothing happens when there is none."""
        self.reach.close_room(room, namespace or "/")

    def rooms(self, sid: str, namespace: str | None = None, timeout: float | None = ASKING) -> list[Any]:
        """Return the rooms of a client, its own sid among them; an empty list when it isn't there.

        With a message queue, the other processes are asked about a client that isn't one of this process.

        Args:
            sid: The client.
            namespace: ``"/"`` by default.
            timeout: Seconds that the other processes have to answer; None for ever.

        Raises:
            ClusterTimeoutError: Not all of them did.
        """
        if self.core.client(sid, namespace or "/") is not None:
            return self.core.rooms_of(sid, namespace or "/")
        return [room for rooms in self.manager.ask("rooms", namespace or "/", sid, timeout) for room in rooms]

    def participants(
        self, room: Any = None, namespace: str | None = None, timeout: float | None = ASKING
    ) -> list[str]:
        """Return the sids of the clients in a room, of all processes.

        Args:
            room: A room, or several; None for everybody.
            namespace: ``"/"`` by default.
            timeout: Seconds that the other processes have to answer; None for ever.

        Raises:
            ClusterTimeoutError: Not all of them did; its ``results`` are what the others said.

        .. versionadded:: 0.1.0
        """
        return [sid for sids in self.manager.ask("sids", namespace or "/", room, timeout) for sid in sids]

    def count(self, room: Any = None, namespace: str | None = None, timeout: float | None = ASKING) -> int:
        """Return how many clients are in a room, in all processes; see `participants`.

        .. versionadded:: 0.1.0
        """
        return sum(self.manager.ask("count", namespace or "/", room, timeout))

    def get_session(self, sid: str, namespace: str | None = None) -> dict[str, Any]:
        """Return the dict that the program keeps for a client in a namespace.

        Raises:
            KeyError: There is no such client.
        """
        client = self._client(sid, namespace)
        data: dict[str, Any] = client.session.data.user_data.setdefault(client.namespace, {})
        return data

    def save_session(self, sid: str, session: dict[str, Any], namespace: str | None = None) -> None:
        """Keep a dict for a client in a namespace until its connection ends.

        Raises:
            KeyError: There is no such client.
        """
        client = self._client(sid, namespace)
        client.session.data.user_data[client.namespace] = session

    @contextmanager
    def session(self, sid: str, namespace: str | None = None) -> Iterator[dict[str, Any]]:
        """Get a client's dict and save it at the end of the block.

        Raises:
            KeyError: There is no such client.
        """
        session = self.get_session(sid, namespace)
        yield session
        self.save_session(sid, session, namespace)

    # Clients and the server.

    def disconnect(self, sid: str, namespace: str | None = None, ignore_queue: bool = False) -> None:
        """End a client's part in a namespace; nothing happens when it isn't there. The connection stays."""
        (self.core if ignore_queue else self.reach).disconnect(sid, namespace or "/")

    def transport(self, sid: str, namespace: str | None = None) -> str:
        """Return ``"polling"`` or ``"websocket"``.

        Raises:
            KeyError: There is no such client.
        """
        return self._client(sid, namespace).session.transport_name

    def get_environ(self, sid: str, namespace: str | None = None) -> dict[str, Any] | None:
        """Return the WSGI environ of a client's opening request, or None."""
        client = self.core.client(sid, namespace or "/")
        return None if client is None else client.session.environ

    def handle_request(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Serve a WSGI request for the Socket.IO path."""
        if self._begun != os.getpid():
            self.begin()
        return self.eio.handle_request(environ, start_response)

    def begin(self) -> None:
        """Begin to take part in the message queue, if there is one; the first request does so otherwise.

        Waits until the process is subscribed, so that no client misses anything; at most `SUBSCRIBING` seconds: a
        server whose broker is away serves its clients all the same.

        .. versionadded:: 0.1.0
        """
        limit = time.monotonic() + SUBSCRIBING
        while not self.manager.begin() and time.monotonic() < limit and self._begun != os.getpid():
            self.eio.sleep(0.005)
        self._begun = os.getpid()

    def stats(self) -> dict[str, Any]:
        """Return what the server did and does; see `flask_realtime.engineio.Server.stats`.

        Besides there is ``queue``, what went through the message queue since this process began:

        * ``connected``: whether the broker can be reached now.
        * ``members``: other processes with clients now; those of python-socketio don't say that they are there.
        * ``waiting``: messages that wait for the broker now.
        * ``published``, ``received``: messages that were sent and that came, those of this process among them.
        * ``unwanted``: emits of others for which nobody was here.
        * ``dropped``: messages that couldn't be sent, as too many waited or the broker was away for too long.
        * ``lost``: messages of others that never came.
        * ``repeated``: messages that came twice; the second time they were ignored.
        * ``refused``: what came and was no message, or wasn't signed with the secret.
        * ``reconnects``: how often the broker came back.

        .. versionadded:: 0.1.0
        """
        return {**self.eio.stats(), "queue": self.manager.stats()}

    def shutdown(self) -> None:
        """Tell every client, let handlers end, and stop; see `flask_realtime.engineio.Server.shutdown`."""
        self.eio.shutdown()

    def start_background_task(self, target: Callable[..., Any], *args: Any, **kwargs: Any) -> Task:
        """Run a function in a thread or greenlet of its own; returns it, so that you can ``join()`` it."""
        return self.eio.start_background_task(target, *args, **kwargs)

    def sleep(self, seconds: float = 0) -> None:
        """Let others run for some seconds; with 0, for one turn of those that wait."""
        self.eio.sleep(seconds)


def call(
    core: Core,
    reach: Core | Cluster,
    event: str,
    args: Sequence[Any],
    namespace: str,
    to: Any,
    timeout: float | None,
) -> Any:
    """Emit and wait for the acknowledgement; see `Server.call`."""
    waiter = Waiter(core.runtime.event())
    clients = reach.emit(event, args, namespace, to, (), waiter)
    if not clients and reach is core:
        raise TimeoutError(f"there is no client {to!r} in namespace {namespace!r}")
    try:
        waiter.event.wait(timeout)
    finally:
        reach.forget_waiter(waiter, clients)
    if waiter.answer is None:
        if waiter.gone:
            raise ClientGoneError(f"client {to!r} disconnected before it answered")
        raise TimeoutError(f"no answer from {to!r} within {timeout} s")
    values = waiter.answer
    return None if not values else values[0] if len(values) == 1 else tuple(values)


def _codec(serializer: str | Codec, json: Any, default: Callable[[Any], Any] | None) -> Codec:
    if serializer == "default":
        return TextCodec(json, default)
    if serializer == "msgpack":
        try:
            from .protocol.socketio.msgpack import MsgpackCodec
        except ImportError:
            raise ConfigurationError("serializer='msgpack' needs: pip install 'flask_realtime[msgpack]'") from None
        return MsgpackCodec(default)
    if isinstance(serializer, str) or not (hasattr(serializer, "encode") and hasattr(serializer, "decoder")):
        raise ConfigurationError(
            f"serializer: expected 'default', 'msgpack' or an object with encode() and decoder(), got {serializer!r}"
        )
    return serializer


class Namespace:
    """A class-based namespace: methods ``on_<event>`` are its handlers. One instance serves all clients.

    Args:
        namespace: ``"/"`` by default.

    .. versionadded:: 0.1.0
    """

    def __init__(self, namespace: str | None = None) -> None:
        self.namespace = namespace or "/"
        self.server: Any = None

    def is_asyncio_based(self) -> bool:
        return False

    def _set_server(self, server: Any) -> None:
        self.server = server

    def trigger_event(self, event: str, *args: Any) -> Any:
        """Call the method of an event; override it to dispatch differently.

        Args:
            event: Its name.
            *args: As the handlers of `Server.on` get them, the sid first.
        """
        handler = getattr(self, f"on_{event or ''}", None)
        if handler is None:
            return None
        extra = 1 if self.namespace == "*" else 0
        if event == "connect":
            args = fit(handler, args, 2 + extra)
        elif event == "disconnect":
            args = fit(handler, args, 1 + extra)
        return handler(*args)

    def emit(
        self,
        event: str,
        data: Any = None,
        to: Any = None,
        room: Any = None,
        skip_sid: Any = None,
        namespace: str | None = None,
        callback: Callable[..., Any] | None = None,
        ignore_queue: bool = False,
    ) -> None:
        """As `Server.emit`, in this namespace."""
        self.server.emit(
            event,
            data=data,
            to=to,
            room=room,
            skip_sid=skip_sid,
            namespace=namespace or self.namespace,
            callback=callback,
            ignore_queue=ignore_queue,
        )

    def send(
        self,
        data: Any,
        to: Any = None,
        room: Any = None,
        skip_sid: Any = None,
        namespace: str | None = None,
        callback: Callable[..., Any] | None = None,
        ignore_queue: bool = False,
    ) -> None:
        """As `Server.send`, in this namespace."""
        self.server.send(
            data,
            to=to,
            room=room,
            skip_sid=skip_sid,
            namespace=namespace or self.namespace,
            callback=callback,
            ignore_queue=ignore_queue,
        )

    def call(
        self,
        event: str,
        data: Any = None,
        to: Any = None,
        sid: Any = None,
        namespace: str | None = None,
        timeout: float | None = 60,
        ignore_queue: bool = False,
    ) -> Any:
        """As `Server.call`, in this namespace."""
        return self.server.call(
            event,
            data=data,
            to=to,
            sid=sid,
            namespace=namespace or self.namespace,
            timeout=timeout,
            ignore_queue=ignore_queue,
        )

    def enter_room(self, sid: str, room: Hashable, namespace: str | None = None) -> None:
        """As `Server.enter_room`, in this namespace."""
        self.server.enter_room(sid, room, namespace=namespace or self.namespace)

    def leave_room(self, sid: str, room: Hashable, namespace: str | None = None) -> None:
        """As `Server.leave_room`, in this namespace."""
        self.server.leave_room(sid, room, namespace=namespace or self.namespace)

    def close_room(self, room: Hashable, namespace: str | None = None) -> None:
        """As `Server.close_room`, in this namespace."""
        self.server.close_room(room, namespace=namespace or self.namespace)

    def rooms(self, sid: str, namespace: str | None = None) -> list[Any]:
        """As `Server.rooms`, in this namespace."""
        rooms: list[Any] = self.server.rooms(sid, namespace=namespace or self.namespace)
        return rooms

    def get_session(self, sid: str, namespace: str | None = None) -> dict[str, Any]:
        """As `Server.get_session`, in this namespace."""
        session: dict[str, Any] = self.server.get_session(sid, namespace=namespace or self.namespace)
        return session

    def save_session(self, sid: str, session: dict[str, Any], namespace: str | None = None) -> None:
        """As `Server.save_session`, in this namespace."""
        self.server.save_session(sid, session, namespace=namespace or self.namespace)

    def session(self, sid: str, namespace: str | None = None) -> Any:
        """As `Server.session`, in this namespace."""
        return self.server.session(sid, namespace=namespace or self.namespace)

    def disconnect(self, sid: str, namespace: str | None = None) -> None:
        """As `Server.disconnect`, in this namespace."""
        self.server.disconnect(sid, namespace=namespace or self.namespace)


class WSGIApp(engineio.WSGIApp):
    """A WSGI application: the Socket.IO path goes to the server, then come static files, then another application.

    Args:
        socketio_app: A `Server`.
        wsgi_app: The other application; without one, other paths get status 404.
        static_files: Static files by URL; see `flask_realtime.io.static.StaticFiles`.
        socketio_path: Where the server answers.

    .. versionadded:: 0.1.0
    """

    def __init__(
        self,
        socketio_app: Any,
        wsgi_app: Callable[..., Iterable[bytes]] | None = None,
        static_files: Mapping[str, Any] | None = None,
        socketio_path: str = "socket.io",
    ) -> None:
        super().__init__(socketio_app, wsgi_app, static_files, socketio_path)


class Middleware(WSGIApp):
    """The older name of `WSGIApp`, without static files."""

    def __init__(
        self,
        socketio_app: Any,
        wsgi_app: Callable[..., Iterable[bytes]] | None = None,
        socketio_path: str = "socket.io",
    ) -> None:
        super().__init__(socketio_app, wsgi_app, None, socketio_path)
