"""Where the online store is and how long to wait for it.

Rule: a URL is parsed once, and a password never shows in a repr or an error.

Forms: `valkey://[user[:password]@]host[:port][/db]`, `valkeys://…` with TLS, `unix://[user[:password]@]/path?db=0`;
`redis://` and `rediss://` mean the same as `valkey://` and `valkeys://`. Query parameters: `db` and, with TLS,
`ssl_ca_certs` (a file with the certificates to trust). A cluster: `valkey+cluster://[user[:password]@]host:port,host:port`
(`valkeys+cluster://` with TLS) with some of its nodes, and the query parameter `read_from=primaries` (default) or
`replicas`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from feature_platform.errors import ConfigurationError
from feature_platform.settings import read

DEFAULT_PORT = 6379
_PLAIN = frozenset({"valkey", "redis"})
_TLS = frozenset({"valkeys", "rediss"})
_CLUSTER = "+cluster"
_READ_FROM = {"primaries": False, "replicas": True}
_FORMS = "valkey://host:port/db, valkeys://host:port/db, unix:///path/to.sock?db=0"
_CLUSTER_FORMS = "valkey+cluster://host:port,host:port, valkeys+cluster://host:port,host:port"


@dataclass(frozen=True, slots=True, kw_only=True)
class ValkeyAddress:
    """The address of one Valkey server."""

    host: str = ""
    port: int = DEFAULT_PORT
    socket_path: str = ""
    """Unix socket; if set, host and port are unused."""
    tls: bool = False
    ca_certs: str | None = None
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> ValkeyAddress:
        """The address that a URL names.

        Raises:
            ConfigurationError: it has another form.

        >>> ValkeyAddress.parse("valkey://cache:7000/2")
        ValkeyAddress(host='cache', port=7000, socket_path='', tls=False, ca_certs=None, database=2, username=None)
        """
        try:
            parts = urlsplit(url)
            port = parts.port or DEFAULT_PORT
        except ValueError as error:
            raise _malformed(str(error)) from error
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        if parts.scheme.endswith(_CLUSTER):
            raise ConfigurationError(
                "this needs the address of one server, and the URL names a cluster",
                found=f"scheme {parts.scheme}",
                allowed=_FORMS,
                hint="name one server here",
            )
        if unknown := query.keys() - {"db", "ssl_ca_certs"}:
            raise _malformed(f"query parameter {', '.join(sorted(unknown))}")
        path = unquote(parts.path)
        if parts.scheme == "unix":
            if not path or parts.hostname:
                raise _malformed("a Unix socket without an absolute path")
            return cls(
                socket_path=path,
                database=_database(query.get("db", "0")),
                username=_part(parts.username),
                password=_part(parts.password),
            )
        return _tcp(parts, port, path, query)

    def __str__(self) -> str:
        if self.socket_path:
            return f"unix://{self.socket_path}?db={self.database}"
        return f"{'valkeys' if self.tls else 'valkey'}://{self.host}:{self.port}/{self.database}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineSettings:
    """What the online client needs to know."""

    address: ValkeyAddress
    seeds: tuple[ValkeyAddress, ...] = ()
    """Some nodes of a cluster; the others are learned from them. Empty: `address` is one server."""
    from_replicas: bool = False
    """Of a cluster, read from replicas where there are some. They may be behind their primary."""
    timeout_seconds: float = 1.0
    """Deadline of one call, connecting and trying again included."""
    catalog_seconds: float = 60.0
    """How long the client trusts the schema documents it has read; an unknown name or layout is looked up at once."""
    cache_seconds: float = 0.0
    """So long values are kept in the process and served without asking the store; 0: never."""
    cache_entries: int = 10_000
    """At most so many values are kept."""

    @classmethod
    def parse(cls, url: str, *, timeout_seconds: float = 1.0) -> Self:
        """The settings that a URL names: one server, or a cluster.

        Raises:
            ConfigurationError: it has another form.

        >>> [str(seed) for seed in OnlineSettings.parse("valkey+cluster://a:7000,b:7001").seeds]
        ['valkey://a:7000/0', 'valkey://b:7001/0']
        """
        scheme, _, rest = url.partition("://")
        if not scheme.endswith(_CLUSTER):
            return cls(address=ValkeyAddress.parse(url), timeout_seconds=timeout_seconds)
        seeds, from_replicas = _parse_cluster(scheme.removesuffix(_CLUSTER), rest)
        return cls(address=seeds[0], seeds=seeds, from_replicas=from_replicas, timeout_seconds=timeout_seconds)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> OnlineSettings:
        """The settings of the environment, else of the data directory's `connections.json`.

        Raises:
            ConfigurationError: the address is set nowhere, or malformed.
        """
        return cls.parse(read("VALKEY_URL", environ))


def _parse_cluster(scheme: str, rest: str) -> tuple[tuple[ValkeyAddress, ...], bool]:
    rest, _, text = rest.partition("?")
    query = {name: values[-1] for name, values in parse_qs(text, keep_blank_values=True).items()}
    read_from = query.pop("read_from", "primaries")
    if read_from not in _READ_FROM:
        raise _malformed(f"read_from {read_from!r}", "read_from=primaries, read_from=replicas")
    netloc, slash, path = rest.partition("/")
    login, at, nodes = netloc.rpartition("@")
    suffix = slash + path + ("?" + "&".join(f"{name}={value}" for name, value in query.items()) if query else "")
    # every node by the form of one server, so that both forms are read by one reader
    seeds = [ValkeyAddress.parse(f"{scheme}://{login}{at}{node.strip()}{suffix}") for node in nodes.split(",")]
    return tuple(seeds), _READ_FROM[read_from]


def _tcp(parts: SplitResult, port: int, path: str, query: Mapping[str, str]) -> ValkeyAddress:
    if parts.scheme not in _PLAIN | _TLS:
        raise _malformed(f"scheme {parts.scheme!r}")
    if not parts.hostname:
        raise _malformed("no host")
    return ValkeyAddress(
        host=parts.hostname,
        port=port,
        tls=parts.scheme in _TLS,
        ca_certs=query.get("ssl_ca_certs"),
        database=_database(path.strip("/") or query.get("db", "0")),
        username=_part(parts.username),
        password=_part(parts.password),
    )


def _part(text: str | None) -> str | None:
    return unquote(text) if text else None


def _database(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise _malformed(f"database {text!r}")
    return int(text)


def _malformed(found: str, allowed: str = f"{_FORMS}, {_CLUSTER_FORMS}") -> ConfigurationError:
    return ConfigurationError(
        "the address of the online store is malformed",
        found=found,
        allowed=allowed,
        hint="correct FEATURE_PLATFORM_VALKEY_URL",
    )
