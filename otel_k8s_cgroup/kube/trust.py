"""Whose certificates are believed, and the one that is shown in turn: PEM that others may replace while we run."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from otel_k8s_cgroup.connections import load_client_certificate, tls_context
from otel_k8s_cgroup.errors import KubeError
from otel_k8s_cgroup.http_words import quoted

from .files import Signature, read_bounded, signature

if TYPE_CHECKING:
    import ssl

    from otel_k8s_cgroup.model import ClientCertificate, Pem

    from .complaints import Server

_MAX_PEM_BYTES = 4 * 1024 * 1024

Signatures = tuple[Signature | None, ...]


class Trust:
    """TLS to one server.

    Args:
        ca: the certificates that the server's is verified with; None: the system's CAs.
        verify: False takes any certificate of the server.
        client: the certificate that we show; None: none.
        server: who is asked, in messages.
    """

    def __init__(self, ca: Pem | None, *, verify: bool, client: ClientCertificate | None, server: Server) -> None:
        self._ca = ca
        self._verify = verify
        self._client = client
        self._server = server
        self._tried: Signatures = ()
        """Of the files that were read last, whether they would do or not."""

    @property
    def ca_name(self) -> str:
        """The CA in force, in a user's words."""
        return "the system's CAs" if self._ca is None else f"{self._server.ca_setting} {self._ca.name!r}"

    def signatures(self) -> Signatures:
        """Of the files as they are now. Raises OSError."""
        return tuple(None if pem.content is not None else signature(pem.name) for pem in self._pems())

    def files_changed(self) -> bool:
        """Whether a file is another one than the one that was read last."""
        with contextlib.suppress(OSError):
            return self.signatures() != self._tried
        return False

    def read(self) -> tuple[ssl.SSLContext, Signatures]:
        """The context that the files make, and of which files it is. Raises KubeError where one cannot be used."""
        read = [self._content(pem) for pem in self._pems()]
        self._tried = tuple(signature for _, signature in read)
        contents = [content for content, _ in read]
        # Names beside the certificates may be UTF-8.
        ca = None if self._ca is None else contents.pop(0).decode("ascii", errors="ignore")
        try:
            context = tls_context(ca, verify=self._verify)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise self._ca_error(error) from error
        if contents:
            try:
                load_client_certificate(context, *contents)
            except (OSError, ValueError) as error:
                raise self._client_error(error) from error
        return context, self._tried

    def _pems(self) -> list[Pem]:
        ca = [] if self._ca is None else [self._ca]
        return ca if self._client is None else [*ca, self._client.certificate, self._client.key]

    def _content(self, pem: Pem) -> tuple[bytes, Signature | None]:
        if pem.content is not None:
            return pem.content, None
        try:
            return read_bounded(pem.name, _MAX_PEM_BYTES)
        except OSError as error:
            raise (self._ca_error if pem is self._ca else self._client_error)(error) from error

    def _ca_error(self, error: Exception) -> KubeError:
        return KubeError(
            f"{self.ca_name}: {_reason(error)}; it must be a PEM file with the certificate of the CA that signed that "
            f"of {self._server.program}"
        )

    def _client_error(self, error: Exception) -> KubeError:
        client = self._client
        name, key = ("", "") if client is None else (client.certificate.name, client.key.name)
        return KubeError(
            f"client certificate {name!r} with key {key!r}: {_reason(error)}; they must be PEM, and belong together"
        )


def _reason(error: Exception) -> str:
    return quoted((error.strerror if isinstance(error, OSError) else None) or str(error))
