"""How clients get in: the server's certificate, the token, and the kubeconfig that carries both.

The certificates are made once and kept with the state, so that a kubeconfig stays good over a restart. They hold for
the loopback addresses only, like the server itself.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import secrets
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

__all__ = ["Credentials", "kubeconfig", "load_credentials", "write_private"]

_DAYS = 3650
_NAMES = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
_ADDRESSES = ("127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a server needs to prove who it is, and a client to prove that it may speak."""

    authority: str  # PEM, the certificate that signed the server's
    certificate: Path
    key: Path
    token: str

    def server_context(self) -> ssl.SSLContext:
        """TLS for the listening side."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.certificate, self.key)
        return context

    def client_context(self) -> ssl.SSLContext:
        """TLS for a client in Python."""
        return ssl.create_default_context(cadata=self.authority)


def write_private(path: Path, content: str | bytes) -> None:
    """Write a file that nobody else may read, whole or not at all."""
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def load_credentials(directory: Path) -> Credentials:
    """The credentials kept in a directory; made when absent, or when the certificate is about to end."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    authority, certificate, key = (directory / n for n in ("ca.crt", "server.crt", "server.key"))
    if not all(p.exists() for p in (authority, certificate, key)) or _ends_soon(certificate):
        _make(authority, certificate, key)
    token = directory / "token"
    if not token.exists() or not token.read_text().strip():
        write_private(token, secrets.token_urlsafe(32))
    return Credentials(authority.read_text(), certificate, key, token.read_text().strip())


def _ends_soon(certificate: Path) -> bool:
    from cryptography import x509

    try:
        held = x509.load_pem_x509_certificate(certificate.read_bytes())
    except ValueError:
        return True
    return held.not_valid_after_utc < datetime.now(UTC) + timedelta(days=30)


def _make(authority: Path, certificate: Path, key: Path) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    # Clocks of containers and of the machine may differ a little.
    start = datetime.now(UTC) - timedelta(hours=1)
    end = start + timedelta(days=_DAYS)

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    def usage(*, signs: bool) -> x509.KeyUsage:
        return x509.KeyUsage(
            digital_signature=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=signs,
            crl_sign=signs,
            encipher_only=False,
            decipher_only=False,
        )

    root_key = ec.generate_private_key(ec.SECP256R1())
    root_name = name("agentswarm local cluster")
    root_id = x509.SubjectKeyIdentifier.from_public_key(root_key.public_key())
    root = (
        x509.CertificateBuilder()
        .subject_name(root_name)
        .issuer_name(root_name)
        .public_key(root_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage(signs=True), critical=True)
        .add_extension(root_id, critical=False)
        .sign(root_key, hashes.SHA256())
    )
    own_key = ec.generate_private_key(ec.SECP256R1())
    alternatives: list[x509.GeneralName] = [x509.DNSName(n) for n in _NAMES]
    alternatives += [x509.IPAddress(ipaddress.ip_address(a)) for a in _ADDRESSES]
    own = (
        x509.CertificateBuilder()
        .subject_name(name("agentswarm local API server"))
        .issuer_name(root_name)
        .public_key(own_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(own_key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(root_id), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    # The authority's key is thrown away: it has signed all it ever will.
    pem = serialization.Encoding.PEM
    write_private(
        key,
        own_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )
    write_private(certificate, own.public_bytes(pem))
    write_private(authority, root.public_bytes(pem))


def kubeconfig(
    url: str, authority: str, token: str, *, name: str = "agentswarm-local", namespace: str = "default"
) -> str:
    """A kubeconfig (YAML, of which JSON is a part) for one cluster, one user and one context, all of one name."""
    import yaml

    data = base64.b64encode(authority.encode()).decode()
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": url, "certificate-authority-data": data}}],
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": namespace}}],
        "current-context": name,
    }
    return yaml.safe_dump(document, sort_keys=False)
