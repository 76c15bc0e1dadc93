"""What GET /metrics tells a Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class Metrics:
    """The numbers of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = {"registry": self.registry}
        self.rows = Histogram("diffusion_rows_per_call", "rows of a network call", buckets=ROWS, **own)
        self.seconds = Histogram("diffusion_step_seconds", "seconds of a round of steps", buckets=SECONDS, **own)
        self.inside = Counter("diffusion_network_seconds", "of those in the network", **own)
        self.calls = Counter("diffusion_image_calls", "rows computed", **own)
        self.cancelled = Counter("diffusion_cancelled", "accepted requests whose client went away", **own)
        self.refused = Counter("diffusion_refused", "requests refused because the queue was full", **own)
        names = ("method", "route", "status")
        self.requests = Counter("diffusion_requests", "answers by route and status", names, **own)
        self.latency = Histogram("diffusion_request_seconds", "until the last byte", ("route",), **own)

    def follow(self, name: str, text: str, read: Callable[[], float]) -> None:
        """A number that is read when it is asked for."""
        Gauge(f"diffusion_{name}", text, registry=self.registry).set_function(read)

    def observe_round(self, rows: int, seconds: float, inside: float) -> None:
        self.rows.observe(rows)
        self.seconds.observe(seconds)
        self.inside.inc(inside)
        self.calls.inc(rows)

    def text(self) -> bytes:
        return generate_latest(self.registry)
