"""`python -m tests.cluster`: a real Kubernetes node on this machine.

up            starts one, which stays up
down          takes it down
in PROGRAM …  runs a program in the namespaces of the one that is up
with PROGRAM … the same, with a node that is started for it where none is up, and taken down after it
v2            runs some of the tests in a node on cgroup v2, which is in a User-Mode-Linux kernel of its own
why-not       says why none can be run here, with exit code 1
"""

from __future__ import annotations

import sys

from tests.cluster import binaries, uml
from tests.cluster.node import Node, NodeFailed


def main(arguments: list[str]) -> int:
    node = Node()
    match arguments:
        case ["up"]:
            node.up(attached=False)
            sys.stderr.write("the node is up: `make kubectl ARGS='get pods -A'`, `make cluster-down`\n")
        case ["down"]:
            node.down()
        case ["in", *argv] if argv:
            return node.run(argv)
        case ["with", *argv] if argv:
            with node.running():
                return node.run(argv)
        case ["v2"]:
            return uml.run()
        case ["why-not"]:
            if reason := binaries.why_not():
                raise NodeFailed(reason)
        case _:
            sys.stderr.write(__doc__ or "")
            return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except NodeFailed as error:
        sys.exit(f"no Kubernetes node: {error}")
