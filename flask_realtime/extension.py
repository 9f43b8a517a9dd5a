"""SocketIO: the Flask extension."""

from __future__ import annotations

import inspect
import json as standard_json
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import flask

from . import run as servers
from . import socketio as face
from .context import Contexts, with_sid
from .engineio import RUNTIME_OPTIONS, Reason, warn
from .errors import ConfigurationError
from .managers import ASKING, PubSubManager, for_url
from .namespace import Namespace
from .protocol.engineio.options import NAMES, split
from .protocol.socketio.client import Client
from .protocol.socketio.cluster import Cluster
from .protocol.socketio.core import Core, arguments, as_sids
from .protocol.socketio.dispatch import check

if TYPE_CHECKING:
    from .testing import SocketIOTestClient


class SocketIO:
    """Socket.IO for a Flask application.

    Args:
        app: The application; None to call `init_app` later.
        **kwargs: Options. Times are in seconds, sizes in bytes.

            * ``manage_session``: True gives handlers a session of their own connection, copied from the HTTP session at
              its first event; False opens Flask's session for each event, and saves it when that is possible without a
              cookie.
            * ``message_queue``: URL of the broker that connects several processes, like ``redis://``; or a list of them
              for Kafka. Without an application this process only emits.
            * ``channel``: the same in all processes that belong together, ``"flask-socketio"`` by default.
            * ``message_queue_secret``: messages between processes are signed with it, and only signed ones are taken.
            * ``path`` (or ``resource``): where the server answers, ``"socket.io"`` by default.
            * All options of `flask_realtime.socketio.Server`, and those of `flask_realtime.engineio.Server` below it.

    Handlers may be registered before `init_app` and after it.

    .. versionadded:: 0.1.0
    """

    reason = Reason

    def __init__(self, app: flask.Flask | None = None, **kwargs: Any) -> None:
        self.server: face.Server | None = None
        self.server_options: dict[str, Any] = {}
        self.wsgi_server: Any = None
        self.sockio_mw: WSGIMiddleware | None = None
        self.handlers: list[tuple[str, Callable[..., Any], str]] = []
        self.namespace_handlers: list[Namespace] = []
        self.exception_handlers: dict[str, Callable[[BaseException], Any]] = {}
        self.default_exception_handler: Callable[[BaseException], Any] | None = None
        self.queue_gap_handler: Callable[[int], Any] | None = None
        self._manage_session = bool(kwargs.get("manage_session", True))
        self._contexts: Contexts | None = None
        self._options = kwargs
        self._outside: PubSubManager | None = None
        if app is not None or kwargs.get("message_queue"):
            self.init_app(app, **kwargs)

    def init_app(self, app: flask.Flask | None, **kwargs: Any) -> None:
        """Serve an application.

        Args:
            app: Its ``wsgi_app`` is wrapped, so that the Socket.IO path reaches the server.
            **kwargs: Options, over those of the constructor.

        Raises:
            ConfigurationError: An option has a value that can't work; it is a ValueError too.
        """
        options = {**self._options, **kwargs}
        if "manage_session" not in kwargs:
            options.pop("manage_session", None)  # the attribute may have been set since
        self._options = dict(options)
        queue = {name: options.pop(name) for name in _QUEUE if name in options}
        if app is None:
            self._outside = _write_only(queue, options)
            return
        manager = options.get("client_manager")
        if queue.get("message_queue"):
            if manager is not None:
                raise ConfigurationError("expected message_queue or client_manager, got both")
            options["client_manager"] = _manager(queue, False)
        self._manage_session = bool(options.pop("manage_session", self._manage_session))
        resource = options.pop("path", None) or options.pop("resource", None) or "socket.io"
        options.pop("resource", None)
        self.server_options = {**options, **queue}
        _warn_of_unknown(options)
        json = options.pop("json", None)
        default: Callable[[Any], Any] | None = None
        if json is None:
            default = _flask_default(app)
        elif json is flask.json:
            json = _FlaskJson(app)
        self._contexts = Contexts(app, self._manage_session, self._error_handler)
        self.server = face.Server(
            json=json, _invoke=self._contexts.invoke, _default=default, _adapt=with_sid, **options
        )
        if self.queue_gap_handler is not None:
            self.server.on_queue_gap(self._queue_gap)
        for event, handler, namespace in self.handlers:
            self.core.handlers.add(event, handler, namespace)
        for instance in self.namespace_handlers:
            self._add_namespace(instance)
        if self._outside is not None:  # it was used before there was an application
            self._outside.end()
            self._outside = None
        self.sockio_mw = WSGIMiddleware(self.server, app, socketio_path=resource.lstrip("/"))
        app.wsgi_app = self.sockio_mw  # type: ignore[method-assign]
        app.extensions["socketio"] = self

    @property
    def core(self) -> Core:
        """The clients, rooms and handlers below.

        Raises:
            RuntimeError: There was no `init_app`.
        """
        return self.serving.core

    @property
    def reach(self) -> Core | Cluster:
        """Whom emits and rooms are about: the clients of this process, or with a message queue those of all.

        Raises:
            RuntimeError: There was no `init_app`, and there is no message queue.
        """
        if self.server is not None:
            return self.server.reach
        if self._outside is not None:
            return self._outside.reach
        raise RuntimeError("SocketIO has no application yet: call init_app(app) first, or give it a message_queue")

    @property
    def serving(self) -> face.Server:
        """The server below.

        Raises:
            RuntimeError: There was no `init_app`.
        """
        if self.server is None:
            raise RuntimeError("SocketIO has no application yet: call init_app(app) first")
        return self.server

    @property
    def manage_session(self) -> bool:
        """Whether handlers get a session of their own connection; may be set at any time."""
        return self._manage_session

    @manage_session.setter
    def manage_session(self, manage: bool) -> None:
        self._manage_session = manage
        if self._contexts is not None:
            self._contexts.manage_session = manage

    @property
    def async_mode(self) -> str | None:
        """``"threading"``; None before `init_app`."""
        return None if self.server is None else self.server.async_mode

    # Handlers.

    def on(self, message: str, namespace: str | None = None) -> Callable[..., Any]:
        """Register a function as an event's handler, as a decorator; it returns the function itself.

        Args:
            message: The event's name: ``"connect"`` with () or (auth), ``"disconnect"`` with () or (reason),
                ``"message"`` and ``"json"`` for `send`, any other; ``"*"`` for all without a handler of their own: its
                function gets the name first.
            namespace: ``"/"`` by default; ``"*"`` for all.
        """

        def register(handler: Callable[..., Any]) -> Callable[..., Any]:
            self.on_event(message, handler, namespace)
            return handler

        if callable(message):
            check(message, None)
        return register

    def on_event(self, message: str, handler: Callable[..., Any], namespace: str | None = None) -> None:
        """Register a function as an event's handler; see `on`."""
        check(message, handler)
        warn_of_namespace(namespace)
        self.handlers.append((message, handler, namespace or "/"))
        if self.server is not None:
            self.core.handlers.add(message, handler, namespace or "/")

    def event(self, *args: Any, **kwargs: Any) -> Callable[..., Any]:
        """Register a function as the handler of the event of its name: ``@socketio.event`` or with ``namespace=``."""
        if len(args) == 1 and not kwargs and callable(args[0]):
            self.on_event(args[0].__name__, args[0])
            function: Callable[..., Any] = args[0]
            return function

        def register(handler: Callable[..., Any]) -> Callable[..., Any]:
            self.on_event(handler.__name__, handler, *args, **kwargs)
            return handler

        return register

    def on_namespace(self, namespace_handler: Namespace) -> None:
        """Register a class-based namespace.

        Raises:
            ValueError: It isn't an instance of `Namespace`.
        """
        if not isinstance(namespace_handler, Namespace):
            raise ValueError(
                f"Not a namespace instance: expected a flask_realtime.Namespace, got {namespace_handler!r}"
            )
        warn_of_namespace(namespace_handler.namespace)
        self.namespace_handlers.append(namespace_handler)
        if self.server is not None:
            self._add_namespace(namespace_handler)
        else:
            namespace_handler._set_socketio(self)

    def _add_namespace(self, instance: Namespace) -> None:
        instance._set_socketio(self)
        self.serving.register_namespace(instance)

    def on_error(self, namespace: str | None = None) -> Callable[..., Any]:
        """Register a function as the error handler of a namespace, as a decorator.

        It gets the exception, inside the event's context; what it returns is acknowledged in place of the handler's
        result. A connect handler that failed refuses the client in any case.
        """

        def register(handler: Callable[..., Any]) -> Callable[..., Any]:
            if not callable(handler):
                raise ValueError(f"exception_handler must be callable, got {handler!r}")
            self.exception_handlers[namespace or "/"] = handler
            return handler

        return register

    def on_error_default(self, exception_handler: Callable[..., Any]) -> Callable[..., Any]:
        """Register a function as the error handler of all namespaces that have none; used without parentheses."""
        if not callable(exception_handler):
            raise ValueError(f"exception_handler must be callable, got {exception_handler!r}")
        self.default_exception_handler = exception_handler
        return exception_handler

    def on_queue_gap(self, handler: Callable[[int], Any]) -> Callable[[int], Any]:
        """Register who is told when messages of other processes were missed; used without parentheses.

        Args:
            handler: As of `flask_realtime.socketio.Server.on_queue_gap`; it runs in an application context.
        """
        if not callable(handler):
            raise ValueError(f"handler must be callable, got {handler!r}")
        self.queue_gap_handler = handler
        if self.server is not None:
            self.server.on_queue_gap(self._queue_gap)
        return handler

    def _queue_gap(self, missing: int) -> None:
        assert self._contexts is not None and self.queue_gap_handler is not None
        with self._contexts.app.app_context():
            self.queue_gap_handler(missing)

    def _error_handler(self, namespace: str) -> Callable[[BaseException], Any] | None:
        return self.exception_handlers.get(namespace, self.default_exception_handler)

    # Emitting.

    def emit(
        self,
        event: str,
        *args: Any,
        namespace: str | None = None,
        to: Any = None,
        room: Any = None,
        include_self: bool = True,
        skip_sid: Any = None,
        callback: Callable[..., Any] | None = None,
        ignore_queue: bool = False,
    ) -> None:
        """Emit an event, from anywhere: no context is needed, and any thread may call this.

        Args:
            event: Its name.
            *args: Its arguments; one that is a tuple stands for several.
            namespace: ``"/"`` by default.
            to: A sid or room, or a list, tuple or set of them. None, and only None, means everybody.
            room: The same, when ``to`` is None.
            include_self: Whether the client whose event is being handled, if any, gets it.
            skip_sid: A sid, or several, that don't get it.
            callback: Called with the values that each recipient acknowledges with.
            ignore_queue: Whether only clients of this process are meant.

        Raises:
            TypeError: A value can't be sent.
            ValueError: The event's name is reserved.
            RuntimeError: There is neither an application nor a message queue; or a callback is given in a process that
                only emits.
        """
        reach = self.core if ignore_queue else self.reach
        if namespace is not None and namespace[:1] != "/":
            warn_of_namespace(namespace)
        skip = as_sids(skip_sid)
        current = _current_sid()
        if not include_self and current is not None:
            skip = {*skip, current}
        waiting = callback
        if callback is not None and current is not None:
            waiting = self._in_context_of(current, callback)
        reach.emit(event, _data(args), namespace or "/", room if to is None else to, skip, waiting)

    def _in_context_of(self, sid: str, callback: Callable[..., Any]) -> Callable[..., Any]:
        """Make a callback run in the context of the client whose event is being handled."""
        contexts = self._contexts
        client = self.core.client(sid, flask.request.namespace)  # type: ignore[attr-defined]
        if client is None or contexts is None:
            return callback
        emitter: Client = client
        return lambda *args: contexts.call_back(emitter, callback, args)

    def send(
        self,
        data: Any,
        json: bool = False,
        namespace: str | None = None,
        to: Any = None,
        callback: Callable[..., Any] | None = None,
        include_self: bool = True,
        skip_sid: Any = None,
        room: Any = None,
        ignore_queue: bool = False,
    ) -> None:
        """Emit the event ``"message"``, or ``"json"`` when ``json`` is true; see `emit`."""
        self.emit(
            "json" if json else "message",
            *(() if data is None else (data,)),
            namespace=namespace,
            to=to,
            room=room,
            include_self=include_self,
            skip_sid=skip_sid,
            callback=callback,
            ignore_queue=ignore_queue,
        )

    def call(
        self,
        event: str,
        *args: Any,
        namespace: str | None = None,
        to: Any = None,
        room: Any = None,
        timeout: float | None = 60,
        ignore_queue: bool = False,
    ) -> Any:
        """Emit to one client and wait for its acknowledgement.

        Args:
            event: Its name.
            *args: Its arguments; one that is a tuple stands for several.
            namespace: ``"/"`` by default.
            to: The client's sid.
            room: The same, when ``to`` is None.
            timeout: Seconds to wait; None for ever.
            ignore_queue: Whether the client is one of this process.

        Returns:
            None when the client acknowledged without a value, the value, or a tuple of several.

        Raises:
            ValueError: No client was named.
            TimeoutError: No answer came in time, or there is no such client.
            ClientGoneError: The client went away meanwhile; it is a TimeoutError too.
        """
        target = room if to is None else to
        if target is None:
            raise ValueError("Cannot use call() to broadcast: expected a sid in to=")
        if self.server is None and self._outside is not None:
            raise RuntimeError("call() needs a process that serves clients; this one only emits")
        reach = self.core if ignore_queue else self.reach
        return face.call(self.core, reach, event, _data(args), namespace or "/", target, timeout)

    # Rooms and clients, in all processes when there is a message queue.

    def enter_room(self, sid: str, room: Hashable, namespace: str | None = None) -> None:
        """Put a client into a room; see `flask_realtime.socketio.Server.enter_room`.

        .. versionadded:: 0.1.0
        """
        self.reach.enter_room(sid, room, namespace or "/")

    def leave_room(self, sid: str, room: Hashable, namespace: str | None = None) -> None:
        """Take a client out of a room.

        .. versionadded:: 0.1.0
        """
        self.reach.leave_room(sid, room, namespace or "/")

    def close_room(self, room: Hashable, namespace: str | None = None) -> None:
        """Take everybody out of a room; nothing happens when there is none."""
        self.reach.close_room(room, namespace or "/")

    def disconnect(self, sid: str, namespace: str | None = None) -> None:
        """End a client's part in a namespace.

        .. versionadded:: 0.1.0
        """
        self.reach.disconnect(sid, namespace or "/")

    def rooms(self, sid: str, namespace: str | None = None, timeout: float | None = ASKING) -> list[Any]:
        """Return the rooms of a client; see `flask_realtime.socketio.Server.rooms`.

        .. versionadded:: 0.1.0
        """
        return self.serving.rooms(sid, namespace, timeout)

    def participants(self, room: Any = None, namespace: str | None = None, timeout: float | None = ASKING) -> list[str]:
        """Return the sids of the clients in a room; see `flask_realtime.socketio.Server.participants`.

        .. versionadded:: 0.1.0
        """
        return self.serving.participants(room, namespace, timeout)

    def count(self, room: Any = None, namespace: str | None = None, timeout: float | None = ASKING) -> int:
        """Return how many clients are in a room; see `flask_realtime.socketio.Server.count`.

        .. versionadded:: 0.1.0
        """
        return self.serving.count(room, namespace, timeout)

    def flush(self, timeout: float = 5) -> bool:
        """Wait until what was emitted is handed to the message queue; the end of a process does so by itself.

        Args:
            timeout: Seconds, at most.

        Returns:
            False when that took longer.

        .. versionadded:: 0.1.0
        """
        manager = self._outside if self.server is None else self.server.manager
        return manager.flush(timeout) if isinstance(manager, PubSubManager) else True

    # Running.

    def stats(self) -> dict[str, Any]:
        """Return what the server did and does, as numbers; see `flask_realtime.engineio.Server.stats`.

        Raises:
            RuntimeError: There was no `init_app`.

        .. versionadded:: 0.1.0
        """
        return self.serving.stats()

    def run(
        self,
        app: flask.Flask,
        host: str | None = None,
        port: int | None = None,
        *,
        debug: bool | None = None,
        use_reloader: bool | None = None,
        reloader_options: dict[str, Any] | None = None,
        extra_files: Iterable[str] | None = None,
        log_output: bool | None = None,
        allow_unsafe_werkzeug: bool = False,
        **kwargs: Any,
    ) -> None:
        """Serve an application until Ctrl-C, SIGTERM or `stop`.

        Args:
            app: The application.
            host: Address to listen on, ``"127.0.0.1"`` by default.
            port: By default the one of the config's ``SERVER_NAME``, else 5000.
            debug: Whether to debug; by default what ``app.debug`` says.
            use_reloader: Whether to restart when a file changes; by default as ``debug``.
            reloader_options: For Werkzeug's reloader: ``extra_files``, ``exclude_patterns``, ``reloader_interval``,
                ``reloader_type``.
            extra_files: Files that the reloader watches as well.
            log_output: False: requests aren't logged. Otherwise as Werkzeug does.
            allow_unsafe_werkzeug: Don't warn that Werkzeug's server is meant for development.
            **kwargs: For Werkzeug's server, like ``ssl_context``; ``certfile`` and ``keyfile`` are understood too.
        """
        servers.run(
            self,
            app,
            host,
            port,
            servers.RunOptions(
                debug, use_reloader, reloader_options or {}, extra_files, log_output, allow_unsafe_werkzeug, kwargs
            ),
        )

    def stop(self) -> None:
        """End `run`: clients are told, handlers end. Any thread, handler or signal handler may call this."""
        servers.stop(self)

    def start_background_task(self, target: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a function in a thread of its own; returns it, so that you can ``join()`` it. It has no Flask context."""
        return self.serving.start_background_task(target, *args, **kwargs)

    def sleep(self, seconds: float = 0) -> None:
        """Let others run for some seconds; with 0, for one turn of those that wait."""
        self.serving.sleep(seconds)

    def test_client(
        self,
        app: flask.Flask,
        namespace: str | None = None,
        query_string: str | None = None,
        headers: Any = None,
        auth: Any = None,
        flask_test_client: Any = None,
    ) -> SocketIOTestClient:
        """Make a client for tests, connected to a namespace; see `SocketIOTestClient`."""
        from .testing import SocketIOTestClient

        return SocketIOTestClient(app, self, namespace, query_string, headers, auth, flask_test_client)


class WSGIMiddleware(face.WSGIApp):
    """Puts the server in front of a Flask application."""

    def __init__(self, server: face.Server, app: flask.Flask, socketio_path: str) -> None:
        super().__init__(server, app.wsgi_app, None, socketio_path)
        self.flask_app = app

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        environ = environ.copy()
        environ["flask.app"] = self.flask_app
        return super().__call__(environ, start_response)


_QUEUE = ("message_queue", "channel", "message_queue_secret")


def _manager(queue: dict[str, Any], write_only: bool, json: Any = None) -> PubSubManager:
    channel = queue.get("channel") or "flask-socketio"
    return for_url(queue["message_queue"], channel, write_only, queue.get("message_queue_secret"), json)


def _write_only(queue: dict[str, Any], options: dict[str, Any]) -> PubSubManager:
    """Return what emits in a process without an application."""
    manager = options.get("client_manager")
    if manager is None and not queue.get("message_queue"):
        raise ConfigurationError("expected an application, or a message_queue to emit through; got neither")
    if manager is not None:
        return manager  # type: ignore[no-any-return]
    json = options.get("json")
    return _manager(queue, True, flask.json if json is None else json)


class _FlaskJson:
    """``flask.json`` for an application, wherever it is called."""

    def __init__(self, app: flask.Flask) -> None:
        self._app = app

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        with self._app.app_context():
            return self._app.json.dumps(obj, **kwargs)

    def loads(self, s: Any, **kwargs: Any) -> Any:
        with self._app.app_context():
            return self._app.json.loads(s, **kwargs)


def _flask_default(app: flask.Flask) -> Callable[[Any], Any]:
    """Return a function that turns what only ``app.json`` knows (dates, decimals, UUIDs...) into plain data.

    Plain payloads never come here, so they cost nothing.
    """

    def default(value: Any) -> Any:
        provider_default = getattr(app.json, "default", None)
        with app.app_context():
            if callable(provider_default):
                return provider_default(value)
            return standard_json.loads(app.json.dumps(value))

    return default


def warn_of_namespace(namespace: str | None) -> None:
    """Warn of a namespace that no client can name."""
    if namespace and namespace != "*" and not namespace.startswith("/"):
        text = f"the namespace {namespace!r} doesn't begin with a slash, so no client can join it"
        warn(f"{text}; did you mean '/{namespace}'?")


def _current_sid() -> str | None:
    """Return the sid of the event that is being handled, if one is."""
    if not flask.has_request_context():
        return None
    return getattr(flask.request, "sid", None)


def _data(args: Sequence[Any]) -> list[Any]:
    """Return emit's arguments as the event's: one by the rules of the field, several as they are."""
    return arguments(args[0]) if len(args) == 1 else list(args)


_OWN = ("manage_session", *_QUEUE, "path", "resource", "client_manager")


def _warn_of_unknown(options: dict[str, Any]) -> None:
    """Say which options nobody knows, with the nearest name; take them out."""
    known = [name for name in inspect.signature(face.Server.__init__).parameters if name not in ("self", "options")]
    known = [*(name for name in known if not name.startswith("_")), *RUNTIME_OPTIONS, "async_mode", *_OWN]
    for name in list(options):
        if name not in known and name not in NAMES:
            _, complaints = split({name: options.pop(name)}, known)
            warn(complaints[0])
