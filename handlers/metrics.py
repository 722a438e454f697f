"""What an operator watches: the numbers of this process and of the queue, for Prometheus.

The law: numbers are gathered when they are asked for, from the parts that have them; nothing is
counted twice. The queue's numbers are of all processes together, the others of this one.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from handlers.api import ApiHandler
from handlers.connections import Connections
from vision.missions.queue import Backlog
from vision.missions.run import now_ms
from vision.services import Services


class MetricsHandler(ApiHandler):
    """GET /metrics: the text format of Prometheus, behind a key."""

    async def get(self) -> None:
        backlog = await self.services.queue.backlog()
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Numbers(self.services, self.connections, backlog))
        self.set_header("Content-Type", CONTENT_TYPE_PLAIN_0_0_4)
        self.finish(generate_latest(registry))


class _Numbers(Collector):
    def __init__(self, services: Services, connections: Connections, backlog: Backlog) -> None:
        self._services = services
        self._connections = connections
        self._backlog = backlog

    def collect(self) -> Iterator[Metric]:
        yield from self._queue()
        yield from self._process()
        yield self._upstreams()

    def _queue(self) -> Iterator[Metric]:
        backlog = self._backlog
        missions = GaugeMetricFamily(
            "vision_queue_missions", "Missions in the queue, by state.", labels=["state"]
        )
        missions.add_metric(["waiting"], backlog.waiting)
        missions.add_metric(["claimed"], backlog.claimed)
        yield missions
        age = 0.0 if backlog.since_ms is None else max(0, now_ms() - backlog.since_ms) / 1000
        about = "How long the first waiting mission has been in the queue."
        yield GaugeMetricFamily("vision_queue_age_seconds", about, age)

    def _process(self) -> Iterator[Metric]:
        runner, writer, clients = self._services.runner, self._services.writer, self._connections
        for name, about, value in (
            ("vision_missions_running", "Missions that run here.", len(runner.runs)),
            ("vision_missions_room", "Missions that run here at most.", runner.room),
            ("vision_connections", "Streams and sockets open.", clients.connections.total()),
            ("vision_subscriptions", "Subscriptions of sockets.", clients.subscriptions.total()),
        ):
            yield GaugeMetricFamily(name, about, value)
        yield CounterMetricFamily("vision_log_events", "Events logged here.", writer.events)
        yield CounterMetricFamily("vision_log_writes", "Writes of the log.", writer.writes)

    def _upstreams(self) -> Metric:
        calls = GaugeMetricFamily(
            "vision_upstream_calls", "Model calls, by state.", labels=["upstream", "state"]
        )
        for name, limiter in self._services.models.limiters.items():
            calls.add_metric([name, "running"], limiter.running)
            calls.add_metric([name, "waiting"], limiter.waiting)
        return calls
