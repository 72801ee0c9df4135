"""Prometheus helpers. One registry a process, one endpoint a process; label sets are bounded by who creates them."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 30.0, 60.0, 300.0)


def counter(name: str, doc: str, *labels: str) -> Counter:
    """A counter called `ebb_<name>`."""
    return Counter(f"ebb_{name}", doc, labels, registry=REGISTRY)


def gauge(name: str, doc: str, *labels: str) -> Gauge:
    """A gauge called `ebb_<name>`."""
    return Gauge(f"ebb_{name}", doc, labels, registry=REGISTRY)


def histogram(name: str, doc: str, *labels: str, buckets: tuple[float, ...] = SECONDS) -> Histogram:
    """A histogram called `ebb_<name>`, in seconds unless `buckets` says otherwise."""
    return Histogram(f"ebb_{name}", doc, labels, registry=REGISTRY, buckets=buckets)


def exposition() -> tuple[bytes, str]:
    """This process's metrics as text, and its content type."""
    return generate_latest(REGISTRY), CONTENT_TYPE_LATEST
