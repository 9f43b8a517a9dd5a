"""Flask's request context and session around a handler."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flask
from flask.ctx import AppContext, RequestContext
from flask.globals import _cv_app, _cv_request
from flask.sessions import SessionMixin
from flask.signals import appcontext_popped, appcontext_pushed, appcontext_tearing_down, request_tearing_down

from .errors import ConnectionRefusedError
from .protocol.socketio.client import Client
from .protocol.socketio.dispatch import Handler, fit

SAVED_SESSION = "saved_session"
PROTOTYPE = "flask_realtime.prototype"

_new: Callable[[Any], Any] = object.__new__


class ManagedSession(dict[str, Any], SessionMixin):
    """The session of one connection: a copy of the HTTP session made at its first event, shared by all later ones.

    Nothing that a handler changes in it reaches HTTP, and the other way round.
    """


class EventContext(RequestContext):
    """A request context of the handshake's request, for one event. The URL isn't matched to a route."""

    @property
    def session(self) -> SessionMixin:
        session = self._session
        if session is not None:
            session.accessed = True
        return session  # type: ignore[return-value]  # None only before it is opened, for Flask before 3.1.3

    @session.setter
    def session(self, session: SessionMixin) -> None:  # Flask before 3.1.3 has a plain attribute
        self._session = session

    def match_request(self) -> None:
        pass


class Prototype(NamedTuple):
    """What the events of one connection share; made by the first of them.

    Attributes:
        request: The attributes of the handshake's request.
        url_adapter: For ``url_for``.
        app_url_adapter: The same, of the application context.
    """

    request: dict[str, Any]
    url_adapter: Any
    app_url_adapter: Any


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
        kind = type(app)
        self._own_teardown = (
            kind.do_teardown_request is not flask.Flask.do_teardown_request
            or kind.do_teardown_appcontext is not flask.Flask.do_teardown_appcontext
        )

    def invoke(self, client: Client, handler: Handler, event: Any, args: Sequence[Any]) -> Any:
        """Call a handler inside a context; errors go to the error handlers."""
        if handler.target is None and not handler.any_event and event not in ("connect", "disconnect"):
            return self._run(client, event, event, args, handler.call, args)
        call, args, told = _special(client, handler, event, args)
        return self._run(client, event, "*" if handler.any_event else event, told, call, args, handler.target)

    def call_back(self, client: Client, callback: Callable[..., Any], args: Sequence[Any]) -> Any:
        """Call what waited for an acknowledgement, in the context of the client whose event emitted."""
        return self._run(client, None, None, args, callback, args)

    def _run(
        self,
        client: Client,
        event: Any,
        message: Any,
        told: Sequence[Any],
        call: Callable[..., Any],
        args: Sequence[Any],
        target: Any = None,
    ) -> Any:
        """Enter a context, call, and leave it.

        Args:
            client: Whose event it is.
            event: Its name.
            message: What ``request.event`` calls it.
            told: The arguments in ``request.event``.
            call: The handler.
            args: Its arguments.
            target: The class-based namespace that it belongs to; its method ``error``, if any, gets what no error
                handler takes.
        """
        ctx = self._enter(client, message, told)
        unhandled: BaseException | None = None
        try:
            try:
                result = call(*args)
            except ConnectionRefusedError:
                raise
            except Exception as error:
                on_error = self._error_handler(client.namespace) or getattr(target, "error", None)
                if on_error is None or (event == "connect" and isinstance(error, builtins.ConnectionRefusedError)):
                    raise
                result = on_error(error)
                if event == "connect":
                    result = False  # an error was handled, but who failed to be checked isn't let in
            if not self.manage_session:
                self._save()
            return result
        except BaseException as error:
            unhandled = error
            raise
        finally:
            self._leave(ctx, unhandled)

    def _enter(self, client: Client, message: Any, told: Sequence[Any]) -> EventContext:
        app, environ = self.app, client.session.environ
        prototype: Prototype | None = environ.get(PROTOTYPE)
        session: ManagedSession | None = environ.get(SAVED_SESSION) if self.manage_session else None
        event = {"message": message, "args": tuple(told)}
        own = {"sid": client.sid, "namespace": client.namespace, "event": event}
        if prototype is None or session is None or _cv_app.get(None) is not None or appcontext_pushed.receivers:
            return self._push(prototype, environ, own, session)
        request = _new(app.request_class)
        request.__dict__ = {**prototype.request, **own}
        ctx: EventContext = _new(EventContext)
        app_ctx: AppContext = _new(AppContext)
        app_ctx.app = ctx.app = app
        app_ctx.url_adapter, app_ctx.g = prototype.app_url_adapter, app.app_ctx_globals_class()
        ctx.request, ctx.url_adapter = request, prototype.url_adapter
        ctx._session, ctx.flashes, ctx._after_request_functions = session, None, []
        app_ctx._cv_tokens = [_cv_app.set(app_ctx)]
        ctx._cv_tokens = [(_cv_request.set(ctx), app_ctx)]
        return ctx

    def _push(
        self, prototype: Prototype | None, environ: Any, own: dict[str, Any], session: ManagedSession | None
    ) -> EventContext:
        """Enter a context by Flask's own way: the connection's first event, and whenever somebody listens to it."""
        app = self.app
        request: Any = app.request_class(environ, populate_request=False)
        request.json_module = app.json
        if prototype is None:
            shared = dict(request.__dict__)
        request.__dict__.update(own)
        ctx = EventContext(app, environ, request, session)
        try:
            ctx.push()
            if prototype is None:
                environ[PROTOTYPE] = Prototype(shared, ctx.url_adapter, _cv_app.get().url_adapter)
            if session is None and self.manage_session:
                # The connection's first event; of two at once, the later one takes what the earlier has kept.
                ctx._session = environ.setdefault(SAVED_SESSION, ManagedSession(ctx.session))
        except BaseException as error:
            ctx.pop(error)  # or what was pushed would stay with this thread, for the next client's event
            raise
        return ctx

    def _leave(self, ctx: EventContext, unhandled: BaseException | None) -> None:
        app = self.app
        if (
            app.teardown_request_funcs
            or app.teardown_appcontext_funcs
            or request_tearing_down.receivers
            or appcontext_tearing_down.receivers
            or appcontext_popped.receivers
            or self._own_teardown
            or len(ctx._cv_tokens) != 1
        ):
            ctx.pop(unhandled)
            return
        # What Flask's pop does when nobody is to be told.
        token, app_ctx = ctx._cv_tokens.pop()
        ctx.request.close()
        _cv_request.reset(token)
        if app_ctx is not None:
            _cv_app.reset(app_ctx._cv_tokens.pop())

    def _save(self) -> None:
        session: SessionMixin = flask.session._get_current_object()  # type: ignore[attr-defined]
        if session.modified:
            # There is no response to carry a cookie; sessions that live on the server are saved by this.
            self.app.session_interface.save_session(self.app, session, self.app.response_class())


def with_sid(function: Callable[..., Any], event: str, namespace: str) -> Callable[..., Any]:
    """Make a handler that was registered on the server itself get what such handlers get: the sid comes first."""

    def call(*args: Any) -> Any:
        request: Any = flask.request
        told: tuple[Any, ...] = (request.sid, *args)
        if event == "connect":
            told = (request.sid, request.event["args"][0], *args)
        elif event == "*":
            told = (args[0], request.sid, *args[1:])
        if namespace == "*":
            told = (told[0], request.namespace, *told[1:]) if event == "*" else (request.namespace, *told)
        if event in ("connect", "disconnect"):
            told = fit(function, told, len(told) - 1)
        return function(*told)

    return call


def _special(
    client: Client, handler: Handler, event: Any, args: Sequence[Any]
) -> tuple[Callable[..., Any], Sequence[Any], Sequence[Any]]:
    """Return what to call, its arguments, and those in ``request.event``, where they aren't just the event's."""
    told = args
    if event == "connect":
        auth = args[0] or None
        args = (auth,)
        told = (client.session.environ,) if auth is None else (client.session.environ, auth)
    elif handler.any_event:
        args = told = (event, *args)
    if handler.target is not None:
        extra = (client.session.environ, *args) if event == "connect" else args
        return handler.target.trigger_event, (event, client.sid, *extra), told
    if event in ("connect", "disconnect"):
        args = fit(handler.call, args, 0)
    return handler.call, args, told
