"""What `stats()` tells, as metrics for Prometheus. Needs the extra ``metrics``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol

try:
    from prometheus_client import REGISTRY, CollectorRegistry
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.exposition import choose_encoder
except ImportError as error:
    raise ImportError(
        "flask_realtime.metrics needs the package prometheus-client: pip install 'flask_realtime[metrics]'"
    ) from error

__all__ = ["Collector", "CollectorRegistry", "exposition", "socketio_metrics"]


class Source(Protocol):
    """What has `stats`: a `flask_realtime.SocketIO`, or a server of either face."""

    def stats(self) -> dict[str, Any]: ...


class Metric(NamedTuple):
    """One metric.

    Attributes:
        name: Without the prefix; Prometheus appends ``_total`` to that of a counter.
        family: Counter or gauge.
        path: Where its value is in `stats()`.
        label: By which the value there is divided; "" when it is one number.
        text: Says what it means.
    """

    name: str
    family: Any
    path: tuple[str, ...]
    label: str
    text: str


METRICS = (
    Metric("clients", GaugeMetricFamily, ("clients",), "transport", "Connections now."),
    Metric("connects", CounterMetricFamily, ("connects",), "", "Connections that were accepted."),
    Metric("disconnects", CounterMetricFamily, ("disconnects",), "reason", "Connections that have ended."),
    Metric("events_received", CounterMetricFamily, ("events_in",), "", "Events and acknowledgements that came."),
    Metric(
        "events_sent", CounterMetricFamily, ("events_out",), "", "Events and acknowledgements sent, for each recipient."
    ),
    Metric("waiting_bytes", GaugeMetricFamily, ("bytes_waiting",), "", "Bytes that wait for clients now."),
    Metric("slow_clients", CounterMetricFamily, ("slow_clients",), "", "Clients cut off because they read too slowly."),
    Metric("bad_input", CounterMetricFamily, ("bad_input",), "kind", "What broke the rules of a protocol."),
    Metric("refusals", CounterMetricFamily, ("refusals",), "reason", "Requests and clients that were refused."),
    Metric("handler_calls", CounterMetricFamily, ("handlers", "calls"), "", "Calls of handlers and callbacks."),
    Metric("handler_errors", CounterMetricFamily, ("handlers", "errors"), "", "Calls that failed."),
    Metric("handler_seconds", CounterMetricFamily, ("handlers", "seconds"), "", "Time of the calls that have ended."),
    Metric("handlers_running", GaugeMetricFamily, ("handlers", "running"), "", "Handlers and callbacks that run now."),
    Metric("pool_threads", GaugeMetricFamily, ("pool", "threads"), "", "Threads for handlers now."),
    Metric("pool_threads_max", GaugeMetricFamily, ("pool", "most"), "", "Threads for handlers that there may be."),
    Metric("pool_waiting", GaugeMetricFamily, ("pool", "waiting"), "", "Clients that wait for a thread now."),
    Metric("queue_connected", GaugeMetricFamily, ("queue", "connected"), "", "Whether the message queue is there now."),
    Metric("queue_members", GaugeMetricFamily, ("queue", "members"), "", "Other processes with clients now."),
    Metric("queue_waiting", GaugeMetricFamily, ("queue", "waiting"), "", "Messages that wait for the broker now."),
    Metric("queue_published", CounterMetricFamily, ("queue", "published"), "", "Messages sent to other processes."),
    Metric("queue_received", CounterMetricFamily, ("queue", "received"), "", "Messages that came from the broker."),
    Metric("queue_unwanted", CounterMetricFamily, ("queue", "unwanted"), "", "Emits of others for nobody here."),
    Metric("queue_dropped", CounterMetricFamily, ("queue", "dropped"), "", "Messages that could not be sent."),
    Metric("queue_lost", CounterMetricFamily, ("queue", "lost"), "", "Messages of others that never came."),
    Metric("queue_repeated", CounterMetricFamily, ("queue", "repeated"), "", "Messages of others that came again."),
    Metric("queue_refused", CounterMetricFamily, ("queue", "refused"), "", "What was no message, or not signed."),
    Metric("queue_reconnects", CounterMetricFamily, ("queue", "reconnects"), "", "How often the broker came back."),
)


class Collector:
    """Asks for the numbers whenever Prometheus does.

    Args:
        socketio: A `flask_realtime.SocketIO`, or a ``Server``; `init_app` may come later.

    .. versionadded:: 0.1.0
    """

    def __init__(self, socketio: Source) -> None:
        self._source = socketio

    def describe(self) -> Iterable[Any]:
        """Return the metrics without values: a registry learns their names from them."""
        return [_family(metric) for metric in METRICS]

    def collect(self) -> Iterator[Any]:
        """Yield the metrics."""
        stats = self._source.stats()
        for metric in METRICS:
            if metric.path[0] not in stats:  # a server without Socket.IO has no message queue
                continue
            family, value = _family(metric), stats
            for key in metric.path:
                value = value[key]
            if metric.label:
                for label, number in value.items():
                    family.add_metric([label], number)
            else:
                family.add_metric([], value)
            yield family


def socketio_metrics(socketio: Source, registry: CollectorRegistry = REGISTRY) -> Collector:
    """Register a `Collector`.

    Args:
        socketio: A `flask_realtime.SocketIO`, or a ``Server``.
        registry: A ``prometheus_client.CollectorRegistry``; by default the one that everything else uses.

    Returns:
        The collector, for ``registry.unregister``.

    Raises:
        ValueError: The registry has one already.

    .. versionadded:: 0.1.0
    """
    collector = Collector(socketio)
    registry.register(collector)
    return collector


def exposition(registry: CollectorRegistry, accept: str = "") -> tuple[bytes, str]:
    """Return what a registry holds as Prometheus wants to read it.

    Args:
        registry: Asked for its values.
        accept: The request's header ``Accept``.

    Returns:
        The body, and its content type.

    .. versionadded:: 0.1.0
    """
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def _family(metric: Metric) -> Any:
    return metric.family("flask_realtime_" + metric.name, metric.text, labels=[metric.label] if metric.label else [])
