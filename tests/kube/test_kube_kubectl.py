"""Tokens from ``kubectl create token``: when it is asked, how it is held to its time, and what reaches the user."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from otel_k8s_cgroup.errors import TokenError
from otel_k8s_cgroup.kube import ApiClient, Credentials
from otel_k8s_cgroup.model import TokenRetrieval

from .support import Clock, Kubectl, eventually, jwt

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.kube_api import KubeApi

    from .conftest import Watch

HTTPS = "https://api.example:6443"


@pytest.fixture
def by_kubectl(kubectl: Kubectl, clock: Clock) -> Credentials:
    return Credentials(TokenRetrieval("kubectl"), HTTPS, environ=kubectl.environ, clock=clock)


def test_kubectl_is_asked_once(kubectl: Kubectl, by_kubectl: Credentials) -> None:
    """With the contract's defaults, no shell, and the caller's environment; a token without expiry is kept."""
    kubectl.prints("opaque-token")
    assert [by_kubectl.token() for _ in range(3)] == ["opaque-token"] * 3
    assert kubectl.calls == ["create|token|alumet-reader|-n|alumet|of-the-caller|"]
    assert by_kubectl.origin == "`kubectl create token alumet-reader -n alumet`"


def test_kubectl_token_is_renewed_before_it_expires(kubectl: Kubectl, by_kubectl: Credentials, clock: Clock) -> None:
    """At 80 % of its life, by the token's own times, though the server's clock is a day ahead of ours."""
    day = 86_400.0
    kubectl.prints(jwt(iat=clock.now + day, exp=clock.now + day + 1000, n=1))
    first = by_kubectl.token()
    clock.now += 799
    kubectl.prints(jwt(iat=clock.now + day, exp=clock.now + day + 1000, n=2))
    assert by_kubectl.token() == first
    clock.now += 2
    second = by_kubectl.token()
    assert second != first
    assert len(kubectl.calls) == 2


def test_a_clock_that_was_set_back_renews(kubectl: Kubectl, by_kubectl: Credentials, clock: Clock) -> None:
    """After that the clock cannot tell any more how old the token is."""
    kubectl.prints(jwt(iat=clock.now, exp=clock.now + 1000))
    by_kubectl.token()
    clock.now -= 3600
    by_kubectl.token()
    assert len(kubectl.calls) == 2


def test_a_refused_token_is_asked_for_anew(kubectl: Kubectl, by_kubectl: Credentials) -> None:
    """After a 401."""
    kubectl.prints("token-1")
    assert by_kubectl.token() == "token-1"
    kubectl.prints("token-2")
    by_kubectl.invalidate()
    assert by_kubectl.token() == "token-2"


def test_the_old_token_serves_until_it_expires(
    kubectl: Kubectl, by_kubectl: Credentials, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """kubectl fails at renewal: said once, tried again once a minute, and an error only once the token is of no use."""
    token = jwt(iat=clock.now, exp=clock.now + 1000)
    kubectl.prints(token)
    by_kubectl.token()
    kubectl.does("echo no cluster >&2; exit 1")
    clock.now += 850
    assert [by_kubectl.token() for _ in range(5)] == [token] * 5
    assert len(kubectl.calls) == 2
    clock.now += 61
    assert by_kubectl.token() == token
    assert len(kubectl.calls) == 3
    assert len(caplog.records) == 1
    assert token not in caplog.text
    clock.now += 100
    with pytest.raises(TokenError, match="no cluster"):
        by_kubectl.token()


def test_kubectls_complaint_reaches_the_user(kubectl: Kubectl, by_kubectl: Credentials) -> None:
    """Escaped and cut, with the command and its exit code."""
    kubectl.does(
        "printf 'error: serviceaccounts \"alumet-reader\" not found\\n\\033[31mforged line\\n' >&2; "
        "head -c 100000 /dev/zero | tr '\\0' x >&2; exit 3"
    )
    with pytest.raises(TokenError) as caught:
        by_kubectl.token()
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 1000
    assert 'serviceaccounts "alumet-reader" not found' in message
    assert "exit code 3" in message
    assert "`kubectl create token alumet-reader -n alumet`" in message


@pytest.mark.parametrize(
    "hangs", ["exec sleep 1000", "sleep 1000", "sleep 1000 & echo token", "trap '' TERM; sleep 1000"]
)
def test_a_kubectl_that_hangs_has_a_time_limit(kubectl: Kubectl, hangs: str) -> None:
    """Also where it is a plugin that hangs, or one that was left behind with its output open; and all are ended."""
    os.mkfifo(kubectl.folder / "alive")
    fifo = os.open(kubectl.folder / "alive", os.O_RDONLY | os.O_NONBLOCK)
    kubectl.does(f"exec 9> {kubectl.folder}/alive; {hangs}")
    credentials = Credentials(TokenRetrieval("kubectl"), HTTPS, environ=kubectl.environ, kubectl_timeout_seconds=0.3)
    with pytest.raises(TokenError, match=r"took over 0\.3 s"):
        credentials.token()
    eventually(lambda: not _alive(fifo), "the end of kubectl's processes")
    os.close(fifo)


def test_close_ends_a_kubectl_that_hangs(kubectl: Kubectl) -> None:
    """The exporter ends at once, not after kubectl's time limit; and no kubectl is started after that."""
    kubectl.does(f"echo started > {kubectl.folder}/started; sleep 1000")
    credentials = Credentials(TokenRetrieval("kubectl"), HTTPS, environ=kubectl.environ)
    failures: list[TokenError] = []

    def ask() -> None:
        try:
            credentials.token()
        except TokenError as error:
            failures.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    eventually((kubectl.folder / "started").exists, "kubectl's start")
    credentials.close()
    thread.join(10)
    assert len(failures) == 1
    with pytest.raises(TokenError, match="ending"):
        credentials.token()
    assert len(kubectl.calls) == 1


def test_close_of_the_client_ends_its_kubectl(api: KubeApi, kubectl: Kubectl, watch: Watch) -> None:
    """A watcher that waits for its token stops as promptly as one that waits for the API."""
    kubectl.does(f"echo started > {kubectl.folder}/started; sleep 1000")
    credentials = Credentials(TokenRetrieval("kubectl"), api.url, environ=kubectl.environ)
    watcher = watch(client=ApiClient(api.url, credentials=credentials))
    eventually((kubectl.folder / "started").exists, "kubectl's start")
    assert watcher.stop(10)
    assert api.requests == []


def test_no_kubectl(tmp_path: Path) -> None:
    """Says that it is not on PATH; one that is there and does not start is named too."""
    environ = {"PATH": str(tmp_path)}
    with pytest.raises(TokenError, match="kubectl is not on PATH"):
        Credentials(TokenRetrieval("kubectl"), HTTPS, environ=environ).token()
    broken = tmp_path / "kubectl"
    broken.write_text("#!/nonexistent/interpreter\n")
    broken.chmod(0o755)
    with pytest.raises(TokenError, match="does not start"):
        Credentials(TokenRetrieval("kubectl"), HTTPS, environ=environ).token()


@pytest.mark.parametrize(
    "name", ["--server=http://evil", "-n", "a b", "a;b", "$(id)", "A", "", "a\n", "a/b", "é", "a" * 254]
)
@pytest.mark.parametrize("field", ["service_account", "namespace"])
def test_names_that_are_no_names_never_reach_kubectl(kubectl: Kubectl, field: str, name: str) -> None:
    """Refused when it is set up, naming the field; so none can be an option or more than one argument."""
    with pytest.raises(TokenError, match=field) as caught:
        Credentials(TokenRetrieval("kubectl", **{field: name}), HTTPS, environ=kubectl.environ)
    assert str(caught.value).isprintable()
    assert kubectl.calls == []


def test_names_with_dots_are_service_accounts(kubectl: Kubectl) -> None:
    """A service account is a DNS subdomain, a namespace a label."""
    kubectl.prints("token")
    retrieval = TokenRetrieval("kubectl", service_account="a.b-1", namespace="kube-system")
    assert Credentials(retrieval, HTTPS, environ=kubectl.environ).token() == "token"
    with pytest.raises(TokenError, match="namespace"):
        Credentials(TokenRetrieval("kubectl", namespace="a.b"), HTTPS)


def _alive(fifo: int) -> bool:
    """Whether a process still has the other end open."""
    try:
        while os.read(fifo, 1024):
            pass
    except BlockingIOError:
        return True
    return False
