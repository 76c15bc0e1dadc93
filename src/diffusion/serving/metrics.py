"""What GET /metrics tells a Prometheus."""

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from diffusion.serving.engine import Engine

ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class Metrics:
    """The numbers of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = {"registry": self.registry}
        self.rows = Histogram("diffusion_rows_per_call", "rows of a network call", buckets=ROWS, **own)
        self.seconds = Histogram("diffusion_step_seconds", "seconds of a round of steps", buckets=SECONDS, **own)
        self.calls = Counter("diffusion_image_calls", "rows computed", **own)
        self.cancelled = Counter("diffusion_cancelled", "accepted requests whose client went away", **own)
        self.refused = Counter("diffusion_refused", "requests refused because the queue was full", **own)
        names = ("method", "route", "status")
        self.requests = Counter("diffusion_requests", "answers by route and status", names, **own)
        self.latency = Histogram("diffusion_request_seconds", "until the last byte", ("route",), **own)

    def follow(self, engine: "Engine") -> None:
        """Gauges that are read when they are asked for."""
        queue = Gauge("diffusion_queue_image_calls", "image-calls accepted and not done", registry=self.registry)
        queue.set_function(lambda: engine.batcher.backlog)
        open_requests = Gauge("diffusion_open_requests", "accepted and not answered", registry=self.registry)
        open_requests.set_function(lambda: len(engine.open))
        rate = Gauge("diffusion_image_calls_per_second", "measured lately", registry=self.registry)
        rate.set_function(lambda: engine.batcher.rate)

    def observe_round(self, rows: int, seconds: float) -> None:
        self.rows.observe(rows)
        self.seconds.observe(seconds)
        self.calls.inc(rows)

    def text(self) -> bytes:
        return generate_latest(self.registry)
