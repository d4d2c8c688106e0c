"""Certificates of the tests' own: an authority, one between, and a server's, for localhost and 127.0.0.1."""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Certificates:
    """Files in PEM format.

    Attributes:
        authority: what clients trust.
        chain: the server's certificate, and the one between it and the authority.
        key: the server's private key.
    """

    authority: Path
    chain: Path
    key: Path

    @property
    def trust(self):
        """Return what a client of Python takes that trusts the authority alone."""
        return ssl.create_default_context(cafile=str(self.authority))


def make_certificates(folder):
    """Make them anew in a folder, valid for a day."""
    root = _Issued("an authority of tests", None, is_authority=True)
    between = _Issued("between", root, is_authority=True)
    server = _Issued("localhost", between, is_authority=False)
    made = Certificates(folder / "authority.pem", folder / "chain.pem", folder / "key.pem")
    made.authority.write_bytes(root.certificate_pem)
    made.chain.write_bytes(server.certificate_pem + between.certificate_pem)
    made.key.write_bytes(server.key_pem)
    return made


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("certificates"))


class _Issued:
    def __init__(self, name, issuer, *, is_authority):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        by = issuer or self
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(by.name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
        )
        for extension, is_critical in self._extensions(by, is_authority):
            builder = builder.add_extension(extension, is_critical)
        self.certificate_pem = builder.sign(by.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def _extensions(self, by, is_authority):
        yield x509.BasicConstraints(ca=is_authority, path_length=None), True
        yield x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), False
        yield x509.AuthorityKeyIdentifier.from_issuer_public_key(by.key.public_key()), False
        yield (
            x509.KeyUsage(
                digital_signature=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=is_authority,
                crl_sign=is_authority,
                encipher_only=False,
                decipher_only=False,
            ),
            True,
        )
        if not is_authority:
            names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
            yield x509.SubjectAlternativeName(names), False

    @property
    def key_pem(self):
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
