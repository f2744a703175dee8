"""The exceptions of the exporter.

One small tree. Each exception carries what it is about (a path, a status, a key) as attributes, so that callers count
and log by cause without parsing text, and its message is the one line a user reads: what it is about, what was found,
and what is allowed or what to do.
"""

from __future__ import annotations


class ExporterError(Exception):
    """Root of every error that the exporter raises on purpose."""


# --- settings -------------------------------------------------------------------------------------------------------


class SettingsError(ExporterError):
    """A setting is unusable. ``key`` is the setting as the user wrote it."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"{key}: {message}")
        self.key = key


# --- cgroups --------------------------------------------------------------------------------------------------------


class CgroupError(ExporterError):
    """Something about the cgroup file or directory ``path``. ``cause`` is a short word to count by."""

    cause = "other"

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.path = path


class CgroupGone(CgroupError):
    """The cgroup ended between listing and reading: normal, and silent."""

    cause = "gone"

    def __init__(self, path: str) -> None:
        super().__init__(path, "the cgroup has ended")


class CgroupRootError(CgroupError):
    """The root of the hierarchy is not (or no longer) one."""

    cause = "root"


class CgroupReadError(CgroupError):
    """The kernel refused a read; ``cause`` is the errno's name (``EACCES``, ``EIO``, …)."""

    def __init__(self, path: str, cause: str, message: str) -> None:
        super().__init__(path, message)
        self.cause = cause


class MalformedFile(CgroupError):
    """A line of a cgroup file is not what the kernel documents: costs that figure, and nothing else."""

    cause = "malformed"

    def __init__(self, path: str, line: str, message: str) -> None:
        super().__init__(path, f"line {line!r}: {message}")
        self.line = line


class ProcessesHidden(CgroupError):
    """The processes of a cgroup are not in this PID namespace."""

    cause = "processes hidden"

    def __init__(self, path: str) -> None:
        super().__init__(path, "its processes are not visible: metrics of `network` need the host's (hostPID: true)")


class TooManyInterfaces(CgroupError):
    """A pod has, or has had, more network interfaces than are counted."""

    cause = "interfaces"

    def __init__(self, path: str, most: int, left_out: str) -> None:
        super().__init__(path, f"more than {most} network interfaces: {left_out} left out")


# --- Kubernetes -----------------------------------------------------------------------------------------------------


class KubeError(ExporterError):
    """Something about the Kubernetes API, its token or its answers."""


class TokenError(KubeError):
    """No token could be had by ``strategy``. The token itself is never part of the message."""

    def __init__(self, strategy: str, message: str) -> None:
        super().__init__(f"token_retrieval {strategy}: {message}")
        self.strategy = strategy


class ApiUnreachable(KubeError):
    """No answer from ``url``: refused, timed out, TLS, or a stream that broke. ``cause`` is a short word (``TLS``)."""

    def __init__(self, url: str, message: str, cause: str = "") -> None:
        super().__init__(f"{url}: {message}")
        self.url = url
        self.cause = cause


class ApiStatusError(KubeError):
    """The API answered with ``status``; ``retry_after_seconds`` is what it asked to wait, None where it did not say.

    ``remedy`` is no part of the message: it holds only where the status lasts (an API server that starts refuses for a
    moment what it grants).
    """

    def __init__(
        self, url: str, status: int, message: str, retry_after_seconds: float | None = None, remedy: str = ""
    ) -> None:
        super().__init__(f"{url}: HTTP {status}: {message}")
        self.url = url
        self.status = status
        self.retry_after_seconds = retry_after_seconds
        self.remedy = remedy


class MalformedObject(KubeError):
    """An object of the API lacks what a pod must have, or is not JSON; that one is skipped and counted."""


# --- export ---------------------------------------------------------------------------------------------------------


class ExportError(ExporterError):
    """A request to ``endpoint`` did not succeed. ``cause`` is a short word to count by (``HTTP 503``, ``timeout``)."""

    def __init__(self, endpoint: str, cause: str, message: str) -> None:
        super().__init__(f"{endpoint}: {cause}: {message}")
        self.endpoint = endpoint
        self.cause = cause


class ExportRetryable(ExportError):
    """It may succeed later; ``retry_after_seconds`` is what the receiver asked to wait, None where it did not say."""

    def __init__(self, endpoint: str, cause: str, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(endpoint, cause, message)
        self.retry_after_seconds = retry_after_seconds


class ExportTooLarge(ExportError):
    """The receiver takes only smaller requests."""


class ExportRejected(ExportError):
    """It can never succeed as it is (HTTP 400, INVALID_ARGUMENT, …)."""
