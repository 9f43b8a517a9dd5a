"""Flask's request context and session around a handler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flask
from flask.ctx import RequestContext
from flask.sessions import SessionMixin

from .errors import ConnectionRefusedError
from .protocol.socketio.client import Client
from .protocol.socketio.dispatch import Handler, fit

SAVED_SESSION = "saved_session"


class ManagedSession(dict[str, Any], SessionMixin):
    """The session of one connection: a copy of the HTTP session made at its first event, shared by all later ones.

    Nothing that a handler changes in it reaches HTTP, and the other way round.
    """


_SESSION = getattr(RequestContext, "session", None)  # a property since Flask 3.1.3


class EventContext(RequestContext):
    """A request context of the handshake's request, for one event. The URL isn't matched to a route.

    Attributes:
        managed: The connection's own session, which handlers get instead of Flask's.
    """

    managed: ManagedSession | None = None

    @property
    def session(self) -> SessionMixin:
        if self.managed is not None:
            return self.managed
        opened: SessionMixin = _SESSION.__get__(self) if isinstance(_SESSION, property) else self._opened
        return opened

    @session.setter
    def session(self, session: SessionMixin) -> None:
        self._opened = session

    def match_request(self) -> None:
        pass


class Contexts:
    """Runs handlers of one application.

    Args:
        app: The Flask application.
        manage_session: Whether handlers get the connection's own session, or Flask's.
        error_handler: Returns the error handler of a namespace, or None.
    """

    def __init__(
        self,
        app: flask.Flask,
        manage_session: bool,
        error_handler: Callable[[str], Callable[[BaseException], Any] | None],
    ) -> None:
        self.app, self.manage_session, self._error_handler = app, manage_session, error_handler

    def invoke(self, client: Client, handler: Handler, event: Any, args: Sequence[Any]) -> Any:
        """Call a handler inside a context; errors go to the error handlers."""
        told: tuple[Any, ...] = tuple(args)
        if event == "connect":
            auth = args[0] or None
            told = (client.session.environ,) if auth is None else (client.session.environ, auth)
            args = (auth,)
        elif handler.any_event:
            args = told = (event, *args)
        message = "*" if handler.any_event else event
        with self.enter(client, message, told):
            return self._guarded(client.namespace, event, lambda: _call(client, handler, event, args))

    def call_back(self, client: Client, callback: Callable[..., Any], args: Sequence[Any]) -> Any:
        """Call what waited for an acknowledgement, in the context of the client whose event emitted."""
        with self.enter(client, None, tuple(args)):
            return self._guarded(client.namespace, None, lambda: callback(*args))

    def enter(self, client: Client, message: Any, args: tuple[Any, ...]) -> Entered:
        """Return a context manager."""
        return Entered(self, client, message, args)

    def _guarded(self, namespace: str, event: Any, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except ConnectionRefusedError:
            raise
        except Exception as error:
            handler = self._error_handler(namespace)
            if handler is None or (event == "connect" and isinstance(error, ConnectionRefusedError.__bases__[1])):
                raise
            result = handler(error)
            # An error was handled, but who failed to be checked isn't let in.
            return False if event == "connect" else result


class Entered:
    """One event's context, entered and left."""

    __slots__ = ("_contexts", "_ctx")

    def __init__(self, contexts: Contexts, client: Client, message: Any, args: tuple[Any, ...]) -> None:
        app, environ = contexts.app, client.session.environ
        self._contexts = contexts
        request: Any = app.request_class(environ, populate_request=False)
        request.json_module = app.json
        request.sid, request.namespace = client.sid, client.namespace
        request.event = {"message": message, "args": args}
        session: ManagedSession | None = environ.get(SAVED_SESSION) if contexts.manage_session else None
        self._ctx = EventContext(app, environ, request, session)
        self._ctx.managed = session

    def __enter__(self) -> None:
        ctx = self._ctx
        ctx.push()
        if ctx.managed is None and self._contexts.manage_session:
            # The connection's first event; if there are two at once, the later one takes what the earlier has kept.
            ctx.managed = ctx.request.environ.setdefault(SAVED_SESSION, ManagedSession(ctx.session))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        try:
            if error is None and not self._contexts.manage_session:
                self._save()
        except Exception as failed:
            self._ctx.pop(failed)
            raise
        else:
            self._ctx.pop(error)

    def _save(self) -> None:
        app = self._contexts.app
        session: SessionMixin = flask.session._get_current_object()  # type: ignore[attr-defined]
        if session.modified:
            # There is no response to carry a cookie; sessions that live on the server are saved by this.
            app.session_interface.save_session(app, session, app.response_class())


def _call(client: Client, handler: Handler, event: Any, args: Sequence[Any]) -> Any:
    if handler.target is not None:
        target = handler.target
        if event == "connect":
            auth = args[0]
            environ = client.session.environ
            return target.trigger_event(event, client.sid, environ, *(() if auth is None else (auth,)))
        return target.trigger_event(event, client.sid, *args)
    if event in ("connect", "disconnect"):
        args = fit(handler.call, args, 0)
    return handler.call(*args)
