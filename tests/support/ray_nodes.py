"""A program: Ray's machines as processes of this one, all on loopback. Reads `add` and `remove` from standard input.

It says the address of the cluster once that is there, and each other thing when it is done.
"""

from __future__ import annotations

import sys
from typing import Any

from ray.cluster_utils import Cluster

NODE: dict[str, Any] = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "object_store_memory": 80 * 2**20}


def main() -> None:
    cluster = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False}, connect=False)
    others = [cluster.add_node(**NODE)]
    try:
        print(cluster.address, flush=True)  # noqa: T201
        for line in sys.stdin:
            if line.strip() == "add":
                others.append(cluster.add_node(**NODE))
            else:
                cluster.remove_node(others.pop())
            print("done", flush=True)  # noqa: T201
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
