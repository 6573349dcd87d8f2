"""Makes the secrets of a stack of containers, once: `python -m deploy.credentials FOLDER`. What is there is never changed.

The folder is closed to others (0700); its files are readable (0444), because each container reads those that it is given as
another user. Without --tls everything inside speaks in clear on a network of its own; with it, RabbitMQ and Redis show a
certificate that `ca.pem` signed.
"""

from __future__ import annotations

import argparse
import datetime
import ipaddress
import secrets
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from cryptography import x509
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from service.errors import OperatorError
from service.run import fail

LIFE = datetime.timedelta(days=825)
NAMES = ("rabbitmq", "redis", "streams", "localhost")
PLAIN = (
    "admin_token",
    "rabbitmq_password",
    "redis_password",
    "postgres_password",
    "engine_token",
    "market_data_token",
    "grafana_password",
)
CA = "ca_certs=/run/secrets/ca.pem"


def texts(password: Mapping[str, str], tls: bool) -> dict[str, str]:
    """Return file → content of everything that is made of the passwords: servers' settings and the URLs that fit them."""
    redis = f'requirepass {password["redis_password"]}\nsave ""\nmaxmemory-policy noeviction\n'
    redis += "port 0\ntls-port 6379\ntls-auth-clients no\n" if tls else ""
    redis += "tls-cert-file /run/secrets/cert.pem\ntls-key-file /run/secrets/key.pem\n" if tls else ""
    rabbit = f"default_user = tapeline\ndefault_pass = {password['rabbitmq_password']}\n"
    if tls:
        rabbit += "listeners.tcp = none\nlisteners.ssl.default = 5671\nssl_options.verify = verify_none\n"
        rabbit += "".join(
            f"ssl_options.{of} = /run/secrets/{name}.pem\n"
            for of, name in (("cacertfile", "ca"), ("certfile", "cert"), ("keyfile", "key"))
        )
    queue = f"tapeline:{password['rabbitmq_password']}@rabbitmq"
    cache = f"{'rediss' if tls else 'redis'}://:{password['redis_password']}@"
    tail = f"?ssl_{CA}" if tls else ""
    database = f"postgresql://tapeline:{password['postgres_password']}@postgres:5432"
    return {
        "redis.conf": f"{redis}appendonly no\ndir /tmp\n",
        "streams.conf": f"{redis}appendonly yes\nappendfsync everysec\ndir /data\n",
        "rabbitmq.conf": rabbit,
        "mdq_url": f"amqps://{queue}:5671/?cafile=/run/secrets/ca.pem" if tls else f"amqp://{queue}:5672/",
        "mdc_url": f"{cache}redis:6379/0{tail}",
        "streams_url": f"{cache}streams:6379/0{tail}",
        "scp_database_url": f"{database}/scp",
        "oms_database_url": f"{database}/oms",
    }


def make(folder: Path, tls: bool = False, hosts: tuple[str, ...] = ()) -> list[str]:
    """Make what is missing in `folder` and return its names.  Raises: OperatorError when it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        before = {path.name for path in folder.iterdir()}
        password = {name: _kept(folder / name, lambda: secrets.token_urlsafe(24)) for name in PLAIN}
        _kept(folder / "scp_secret_key", lambda: Fernet.generate_key().decode())
        _kept(folder / "mdl_api_key", lambda: "")
        _certificates(folder, hosts)
        ours = [texts(password, either) for either in (tls, not tls)]
        for name, text in ours[0].items():
            if not _own_server(folder / name, {made[name] for made in ours}):
                _write(folder / name, text)
        return sorted({path.name for path in folder.iterdir()} - before)
    except OSError as error:
        what = f"cannot keep secrets in {folder}: {(error.strerror or str(error)).lower()}"
        raise OperatorError(what, "Give a folder that this user may write, empty or made by this command") from None


def _kept(path: Path, value: Callable[[], str]) -> str:
    if not path.exists():
        _write(path, value())
    return path.read_text()


def _own_server(path: Path, made: set[str]) -> bool:
    """Return whether somebody wrote the URL of a server of their own into a file."""
    return path.name.endswith("_url") and path.exists() and path.read_text() not in made


def _write(path: Path, text: str) -> None:
    if path.exists() and path.read_text() == text:
        return
    own = path.with_name(f".{path.name}.new")
    own.unlink(missing_ok=True)
    own.write_text(text)
    own.chmod(0o444)
    own.replace(path)


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(*form).decode()


def _certificates(folder: Path, hosts: tuple[str, ...]) -> None:
    """Make a CA of our own and one certificate, for the servers inside and, until you bring your own, for the door."""
    if (folder / "cert.pem").exists():
        return
    root, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=5)
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Tapeline stack")])
    blank = x509.CertificateBuilder().issuer_name(issuer).not_valid_before(now).not_valid_after(now + LIFE)
    ca = blank.subject_name(issuer).public_key(root.public_key()).serial_number(x509.random_serial_number())
    ca = ca.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    ca = ca.add_extension(x509.SubjectKeyIdentifier.from_public_key(root.public_key()), critical=False)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tapeline")])
    own = blank.subject_name(subject).public_key(key.public_key()).serial_number(x509.random_serial_number())
    own = own.add_extension(x509.SubjectAlternativeName([_name(name) for name in (*NAMES, *hosts)]), critical=False)
    own = own.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key()), critical=False)
    for name, made in (("ca.pem", ca), ("cert.pem", own)):
        _write(folder / name, made.sign(root, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode())
    _write(folder / "key.pem", _pem(key))


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser("python -m deploy.credentials", description="Make the secrets of a stack of containers")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tls", action="store_true", help="RabbitMQ and Redis speak TLS, with a CA of our own")
    parser.add_argument("--host", action="append", default=[], help="a further name in the certificate; may be repeated")
    given = parser.parse_args()
    try:
        made = make(given.folder, given.tls, ("127.0.0.1", *given.host))
        print(f"tapeline: secrets in {given.folder}: {'made ' + ', '.join(made) if made else 'kept'}", file=sys.stderr)
    except OperatorError as error:
        fail("credentials", error)


if __name__ == "__main__":
    main()
