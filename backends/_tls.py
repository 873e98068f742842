"""A run's own certificate: whoever holds its key, which only the run's owner can read, may talk to the run's dask scheduler and workers, or to one of its servers."""

from __future__ import annotations

import datetime
import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distributed import Security

VALID_DAYS = 365
CERTIFICATE, KEY = "dask.crt", "dask.key"


def security(folder: Path) -> Security:
    """Certificate and key in the folder (mode 0700, files 0600), made where they are not there yet."""
    from distributed import Security

    certificate, key = _files(folder)
    # Their text, not their paths: dask takes a path with a line break for the text.
    parts = {"cert": certificate.read_text(), "key": key.read_text()}
    texts = {f"tls_{role}_{part}": text for role in ("client", "scheduler", "worker") for part, text in parts.items()}
    return Security(require_encryption=True, tls_ca_file=parts["cert"], **texts)


def context(folder: Path, purpose: ssl.Purpose) -> ssl.SSLContext:
    """For connections in which both ends show the folder's certificate: of whoever asks (`SERVER_AUTH`) or answers (`CLIENT_AUTH`)."""
    certificate, key = _files(folder)
    made = ssl.create_default_context(purpose, cafile=str(certificate))
    made.load_cert_chain(certificate, key)
    made.check_hostname = False  # the certificate says enough, whatever the node is called
    made.verify_mode = ssl.CERT_REQUIRED
    return made


def _files(folder: Path) -> tuple[Path, Path]:
    """Certificate and key, made where they are not there yet."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    certificate, key = folder / CERTIFICATE, folder / KEY
    if not certificate.exists():
        made, secret = _self_signed()
        write_private(key, secret)
        write_private(certificate, made)
    return certificate, key


def _self_signed() -> tuple[bytes, bytes]:
    """A certificate that is its own authority, and its key, in PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "workbench-run")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # the nodes' clocks may differ
        .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(pem), secret


def write_private(path: Path, content: bytes) -> None:
    """Whole or not at all, and never readable by others."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
    partial.replace(path)
