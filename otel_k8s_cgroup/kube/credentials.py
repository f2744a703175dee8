"""Tokens of the Kubernetes API: from a file, from ``kubectl create token``, or none.

Sources: https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#bound-service-account-tokens (a
mounted token is replaced before it expires, so it is read again when the file changed),
https://kubernetes.io/docs/reference/kubectl/generated/kubectl_create/kubectl_create_token/.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import math
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from otel_k8s_cgroup.errors import TokenError

from .addresses import is_plain_loopback
from .files import Signature, read_bounded, signature

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from otel_k8s_cgroup.model import TokenRetrieval

log = logging.getLogger(__name__)

MAX_TOKEN_BYTES = 32 * 1024
"""A bound token has about 1 kB; a server takes no header of this size."""
RENEW_AFTER = 0.8
"""The part of a token's life after which it is replaced: the kubelet's own rule for mounted tokens."""
RENEWAL_PAUSE_SECONDS = 60.0
_QUOTED_CHARACTERS = 80

# https://kubernetes.io/docs/concepts/overview/working-with-objects/names/ . Nothing that these let through begins with
# a dash, so no name can be taken for an option of kubectl.
_DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_DNS_SUBDOMAIN = re.compile(rf"(?=.{{1,253}}\Z){_DNS_LABEL.pattern}(\.{_DNS_LABEL.pattern})*")
_TOKEN = re.compile(rb"[!-~]+")


@dataclass(frozen=True, slots=True)
class _Held:
    """A token in use (None: requests go without one) and what tells that it must be had anew."""

    token: str | None = field(repr=False)
    origin: str
    signature: Signature | None = None
    obtained_at: float = -math.inf
    renew_at: float = math.inf
    expires_at: float = math.inf


class _NoToken(Exception):
    """One way of having a token failed, for the reason that is the message; becomes (a part of) a TokenError."""


class Credentials:
    """The token in force, had anew when its file changed, before it expires, and after ``invalidate``.

    ``environ`` is kubectl's environment; its PATH is where kubectl is looked for. ``clock`` is wall-clock seconds.
    ``on_token`` is called with each token that was had, before it is used: no message may show it.
    ``kubeconfig_token`` is that of the method "kubeconfig"; None: its user has none. ``kubectl_flags`` are kubectl's.
    Thread-safe. Raises TokenError on a service account or namespace that is no Kubernetes name.
    """

    def __init__(
        self,
        retrieval: TokenRetrieval,
        api_url: str,
        *,
        environ: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.time,
        kubectl_timeout_seconds: float = 15.0,
        on_token: Callable[[str], None] = lambda _token: None,
        kubeconfig_token: str | None = None,
        kubectl_flags: Sequence[str] = (),
    ) -> None:
        self._kubeconfig_token = kubeconfig_token
        self._kubectl_flags = kubectl_flags
        self._on_token = on_token
        self._retrieval = retrieval
        self.none_will_do = is_plain_loopback(api_url)
        """Whether the API may well want no token: it is plain http on this machine, as of ``kubectl proxy``."""
        self._environ = dict(os.environ if environ is None else environ)
        self._clock = clock
        self._kubectl_timeout_seconds = kubectl_timeout_seconds
        self._lock = threading.Lock()
        self._held: _Held | None = None
        self._tried: Signature | None = None
        """Of the token file when it was read last, whether a token was in it or not; None: it could not be read."""
        self._renewal_failed = False
        self._process_lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        if retrieval.method in ("auto", "kubectl"):
            self._check_names()

    @property
    def origin(self) -> str:
        """Where the token in force is from, in words for a user; before the first one: how it will be had."""
        held = self._held
        return held.origin if held is not None else f"token_retrieval {self._retrieval.method!r}"

    @property
    def sends_token(self) -> bool:
        """Whether a token is in force."""
        held = self._held
        return held is not None and held.token is not None

    def file_changed(self) -> bool:
        """Whether the token file is another one than the one that was read last, or is there at last."""
        if self._retrieval.method not in ("file", "auto") or self._goes_without:
            return False
        with contextlib.suppress(OSError):
            return signature(self._retrieval.file) != self._tried
        return False

    def token(self) -> str | None:
        """The token in force; None where requests go without one. Raises TokenError with the way out."""
        with self._lock:
            if self._held is None or not self._is_fresh(self._held):
                self._held = self._obtain(self._held)
            return self._held.token

    def invalidate(self) -> None:
        """The API refused the token: the next call of ``token`` has it anew, whatever its file or expiry say."""
        with self._lock:
            if not self._goes_without:
                self._held = None

    def close(self) -> None:
        """Ends a kubectl that is running, for another thread; no more tokens after that."""
        with self._process_lock:
            self._closed = True
            if self._process is not None:
                _kill_group(self._process)

    @property
    def _goes_without(self) -> bool:
        """A ``kubectl proxy`` has credentials of its own, which a token would override."""
        match self._retrieval.method:
            case "none":
                return True
            case "kubeconfig":
                return self._kubeconfig_token is None
            case "auto":
                return self.none_will_do
        return False

    def _check_names(self) -> None:
        for what, name, rule in (
            ("service_account", self._retrieval.service_account, _DNS_SUBDOMAIN),
            ("namespace", self._retrieval.namespace, _DNS_LABEL),
        ):
            if not rule.fullmatch(name):
                raise TokenError(
                    self._retrieval.method,
                    f"{what} {name[:_QUOTED_CHARACTERS]!r} is no Kubernetes name: lower-case letters, digits and '-', "
                    "beginning and ending with a letter or digit",
                )

    def _is_fresh(self, held: _Held) -> bool:
        if held.signature is not None:
            with contextlib.suppress(OSError):
                return signature(self._retrieval.file) == held.signature
            return False
        # A wall clock that was set back says nothing about the token any more, so that is a reason to renew too.
        return held.obtained_at <= self._clock() < held.renew_at

    def _obtain(self, held: _Held | None) -> _Held:
        method = self._retrieval.method
        if self._goes_without:
            if method == "auto" and held is None:
                log.info("no token is sent to the API over plain http to this machine, as behind `kubectl proxy`")
            return _Held(None, f"token_retrieval {method!r}" + (" over http to this machine" * (method == "auto")))
        ways = {
            "file": (self._from_file,),
            "kubeconfig": (self._from_kubeconfig,),
            "kubectl": (self._from_kubectl,),
            "auto": (self._from_file, self._from_kubectl),
        }[method]
        reasons: list[str] = []
        for way in ways:
            try:
                obtained = way()
            except _NoToken as failure:
                reasons.append(str(failure))
            else:
                self._renewal_failed = False
                if obtained.token is not None:
                    self._on_token(obtained.token)
                return obtained
        if held is not None and held.signature is None and held.token is not None and self._clock() < held.expires_at:
            return self._keep(held, reasons)
        raise TokenError(method, "; ".join(reasons))

    def _keep(self, held: _Held, reasons: list[str]) -> _Held:
        """The old token, which is still good for a while, because there is no new one yet."""
        if not self._renewal_failed:
            self._renewal_failed = True
            log.warning("the token of the API could not be renewed (%s): the old one is used on", "; ".join(reasons))
        return replace(held, obtained_at=self._clock(), renew_at=self._clock() + RENEWAL_PAUSE_SECONDS)

    def _from_file(self) -> _Held:
        path = self._retrieval.file
        try:
            content, self._tried = read_bounded(path, MAX_TOKEN_BYTES)
        except OSError as error:
            self._tried = None
            hint = " (a pod has one by automountServiceAccountToken)" if self._retrieval.method == "file" else ""
            raise _NoToken(f"token file {path!r}: {error.strerror}{hint}") from error
        return _Held(_checked(content, f"token file {path!r}"), f"token file {path!r}", signature=self._tried)

    def _from_kubeconfig(self) -> _Held:
        where = "the token in k8s_kubeconfig"
        return _Held(_checked((self._kubeconfig_token or "").encode(), where), where)

    def _from_kubectl(self) -> _Held:
        account, namespace = self._retrieval.service_account, self._retrieval.namespace
        command = f"kubectl create token {account} -n {namespace}"
        kubectl = shutil.which("kubectl", path=self._environ.get("PATH", os.defpath))
        if kubectl is None:
            raise _NoToken("kubectl is not on PATH: install it, or choose another token_retrieval")
        output = self._run([kubectl, *self._kubectl_flags, "create", "token", account, "-n", namespace], command)
        token = _checked(output, f"the output of `{command}`")
        now = self._clock()
        life = token_life_seconds(token, now)
        if life is None:
            return _Held(token, f"`{command}`")
        return _Held(token, f"`{command}`", obtained_at=now, renew_at=now + RENEW_AFTER * life, expires_at=now + life)

    def _run(self, argv: list[str], command: str) -> bytes:
        """Standard output. kubectl gets a process group of its own, so that login plugins it starts end with it."""
        try:
            with self._process_lock:
                if self._closed:
                    raise _NoToken(f"`{command}` was not started: the exporter is ending")
                process = subprocess.Popen(  # noqa: S603 - no shell; the names were checked by _check_names
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env=self._environ,
                    start_new_session=True,
                )
                self._process = process
        except OSError as error:
            raise _NoToken(f"{argv[0]!r} does not start: {error.strerror}") from error
        with process:
            try:
                output, complaint = process.communicate(timeout=self._kubectl_timeout_seconds)
            except subprocess.TimeoutExpired:
                raise _NoToken(
                    f"`{command}` took over {self._kubectl_timeout_seconds:g} s: does `kubectl get nodes` answer?"
                ) from None
            finally:
                with self._process_lock:
                    if process.returncode is None:
                        _kill_group(process)
                    self._process = None
        if process.returncode != 0:
            said = complaint.decode(errors="replace").strip()[:_QUOTED_CHARACTERS]
            raise _NoToken(f"`{command}`: exit code {process.returncode}: {said!r}")
        return output


def token_life_seconds(token: str, now: float) -> float | None:
    """How long a JWT lives from when it was issued; None where it does not say, or is no JWT (RFC 7519).

    ``exp`` less ``iat``, both by the API server's clock, so that it does not matter how far off ours is.
    """
    claims = _claims(token)
    expiry, issued = _numeric_date(claims.get("exp")), _numeric_date(claims.get("iat"))
    if expiry is None:
        return None
    life = expiry - (now if issued is None else issued)
    return life if life > 0 else None


def token_expiry(token: str) -> float | None:
    """When a JWT expires, in seconds since 1970 by the clock of who issued it; None where it does not say."""
    return _numeric_date(_claims(token).get("exp"))


def _claims(token: str) -> dict[str, object]:
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        payload = base64.b64decode(parts[1] + "=" * (-len(parts[1]) % 4), altchars=b"-_", validate=True)
        claims = json.loads(payload)
    except (ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


def _numeric_date(claim: object) -> float | None:
    """Seconds since 1970; None where it is no number of this or the next thirty thousand years."""
    if isinstance(claim, bool) or not isinstance(claim, int | float) or not 0 < claim < 1e12:
        return None
    return float(claim)


def _checked(content: bytes, where: str) -> str:
    """``content`` as a token: one word of visible ASCII (RFC 6750), because a line break in it could forge a header."""
    token = content.strip()
    if not token:
        raise _NoToken(f"{where} is empty")
    if len(content) > MAX_TOKEN_BYTES:
        raise _NoToken(f"{where} is larger than {MAX_TOKEN_BYTES} bytes: that is no token")
    if not _TOKEN.fullmatch(token):
        raise _NoToken(f"{where} has white space, control or non-ASCII characters inside: that is no token")
    return token.decode("ascii")


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
