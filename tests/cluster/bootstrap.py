"""What a controller manager would have made, and none runs here."""

from __future__ import annotations

from tests.cluster.api import Api, eventually
from tests.cluster.layout import CA, NODE

NAMESPACES = ("default", "kube-system")


def bootstrap(api: Api | None = None) -> None:
    """The namespaces that a cluster has from the start, as pods need them."""
    api = api or Api()
    for namespace in NAMESPACES:
        # The API server makes them itself, but not before it is ready; and its first answers may be 403.
        eventually(lambda namespace=namespace: api.get(f"/api/v1/namespaces/{namespace}"))  # type: ignore[misc]  # a lambda's default has no type
        furnish_namespace(api, namespace)


def wait_for_node(api: Api | None = None) -> None:
    """Blocks until the kubelet says that pods can run."""
    api = api or Api()

    def is_ready() -> bool:
        conditions = api.get(f"/api/v1/nodes/{NODE}")["status"]["conditions"]
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

    eventually(is_ready, 90)


def make_namespace(api: Api, name: str) -> None:
    """A new one, in which pods can run."""
    api.apply("/api/v1/namespaces", {"metadata": {"name": name}})
    furnish_namespace(api, name)


def furnish_namespace(api: Api, name: str) -> None:
    """The service account and the CA that pods mount."""
    api.apply(f"/api/v1/namespaces/{name}/serviceaccounts", {"metadata": {"name": "default"}})
    bundle = {"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": CA.read_text()}}
    api.apply(f"/api/v1/namespaces/{name}/configmaps", bundle)
