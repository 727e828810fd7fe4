"""`feature-platform exporter`: metrics for Prometheus."""

from __future__ import annotations

import logging
import signal
import threading
from typing import Final

import click

from feature_platform.errors import ConfigurationError
from feature_platform.settings import Settings

DEFAULT_PORT: Final = 9464


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option("--port", default=DEFAULT_PORT, show_default=True, type=click.IntRange(0, 65535), help="0 takes any.")
@click.option("--once", is_flag=True, help="Print the metrics once and end.")
def exporter(*, host: str, port: int, once: bool) -> None:
    """Serve metrics to Prometheus, until it is stopped.

    Ledger and online store are read whenever Prometheus asks. What is exported are instants, such as the newest event
    that is served, so that rules on them stay true while nothing runs. Rules, routes and a configuration to start from
    are in infra/prometheus; every metric is described in docs/reference/metrics.md.
    """
    # 0.1 s, not needed for --help
    from prometheus_client import CollectorRegistry, generate_latest, start_http_server

    from feature_platform.observability.exporter import PlatformCollector

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # a scrape must not be the first to find a setting missing
    collector = PlatformCollector(Settings.from_env(), log=logging.getLogger("feature_platform.exporter"))
    registry = CollectorRegistry()
    registry.register(collector)
    if once:
        click.echo(generate_latest(registry), nl=False)
        return
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise ConfigurationError(
            f"the exporter cannot listen on {host}:{port}",
            found=str(error),
            hint="end the process that listens there, or choose another `--port`",
        ) from error
    click.echo(f"metrics: http://{host}:{server.server_port}/metrics (Ctrl-C ends it)")
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    try:
        stopped.wait()
    finally:
        server.shutdown()
        thread.join()
