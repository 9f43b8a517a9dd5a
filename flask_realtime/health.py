"""Pages that a load balancer, an orchestrator and Prometheus ask for: ``/healthz``, ``/readyz`` and ``/metrics``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import flask

from .extension import SocketIO

__all__ = ["health_blueprint"]

logger = logging.getLogger("flask_realtime.health")


def health_blueprint(
    socketio: SocketIO, checks: Mapping[str, Callable[[], object]] | None = None, metrics: Any = False
) -> flask.Blueprint:
    """Make a blueprint with ``/healthz`` and ``/readyz``, and ``/metrics`` if you like.

    ``/healthz`` answers 200 as long as the process answers at all. ``/readyz`` answers 503 while the server stops,
    while the message queue can't be reached, and when a check fails. Both answer JSON, and nothing that they answer may
    be stored by a cache.

    Args:
        socketio: The extension; `init_app` may come later.
        checks: What else has to work, by name: functions that fail by an exception or by returning False. Exceptions
            are logged and not shown.
        metrics: True for ``/metrics`` with the metrics of ``socketio``. Or a ``prometheus_client.CollectorRegistry``:
            they are registered there, and all that it holds is shown.

    Raises:
        ImportError: Metrics need the extra ``metrics``.

    .. versionadded:: 0.1.0
    """
    blueprint = flask.Blueprint("flask_realtime_health", __name__)

    @blueprint.get("/healthz")
    def healthz() -> flask.Response:
        return _answer(200, status="ok")

    @blueprint.get("/readyz")
    def readyz() -> flask.Response:
        if socketio.serving.eio.gateway.stopping:
            return _answer(503, status="stopping")
        failed = ["message_queue"] if socketio.serving.manager.down else []
        failed += [name for name, check in (checks or {}).items() if not _works(name, check)]
        return _answer(503, status="failed", failed=failed) if failed else _answer(200, status="ready")

    if metrics is not False:
        blueprint.get("/metrics", endpoint="metrics")(_metrics_view(socketio, None if metrics is True else metrics))
    return blueprint


def _works(name: str, check: Callable[[], object]) -> bool:
    try:
        return check() is not False
    except Exception:  # whatever it is, the check has failed
        logger.exception("the check %r failed", name)
        return False


def _answer(code: int, **fields: Any) -> flask.Response:
    response = flask.jsonify(fields)
    response.status_code = code
    response.headers["Cache-Control"] = "no-store"
    return response


def _metrics_view(socketio: SocketIO, registry: Any) -> Callable[[], flask.Response]:
    from . import metrics  # here, so that health needs no prometheus-client

    if registry is None:
        registry = metrics.CollectorRegistry()
    metrics.socketio_metrics(socketio, registry)

    def page() -> flask.Response:
        body, content_type = metrics.exposition(registry, flask.request.headers.get("Accept", ""))
        response = flask.Response(body, content_type=content_type)
        response.headers["Cache-Control"] = "no-store"
        return response

    return page
