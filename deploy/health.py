"""Asks the admin port of the component that runs in this container, for the image's health check: exit code 0 when it is ready.

Uses nothing but the standard library's sockets: it starts every few seconds. A container has one component, so the first
admin port that answers is the one; the ports are the defaults or what the *_ADMIN_PORT variables say. With arguments
(`host:port/path …`) it asks those instead, which is what `helm test` does.
"""

import os
import socket
import sys

PORTS = {
    "MDL": 9101, "MDP": 9102, "WDS": 9103, "ENGINE": 9104, "SCP": 9105,
    "MDL_VENDOR": 9106, "OMS": 9107, "BOTS": 9108, "RISK": 9109,
}  # fmt: skip
ANSWER_S_MAX = 3.0


def ports(environment: dict[str, str]) -> list[int]:
    """Return the admin ports that a component of this image may have, those that somebody set first."""
    given = [environment.get(f"{name}_ADMIN_PORT", "") for name in PORTS]
    return [int(port) for port in given if port.isdecimal()] + list(PORTS.values())


def answer(host: str, port: int, path: str) -> str | None:
    """Return what a port answers: status and body in one text, None when nobody listens."""
    request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
    try:
        with socket.create_connection((host, port), ANSWER_S_MAX) as connection:
            connection.sendall(request.encode())
            parts = iter(lambda: connection.recv(65536), b"")
            head, _, body = b"".join(parts).decode(errors="replace").partition("\r\n\r\n")
    except OSError:
        return None
    return f"{head.split(' ')[1]} {body}" if head.startswith("HTTP/1.1 ") else "no HTTP"


def ready() -> int:
    """Print what the component of this container says of itself; return 0 when it is ready."""
    for port in ports(dict(os.environ)):
        if (found := answer("127.0.0.1", port, "/readyz")) is not None:
            print(found)
            return 0 if found.startswith("200 ") else 1
    print("no admin port answers yet")
    return 1


def others(places: list[str]) -> int:
    """Print whether each `host:port/path` answers; return 0 when all do, with a status that is no fault of theirs."""
    faults = 0
    for place in places:
        host, _, rest = place.partition(":")
        port, slash, path = rest.partition("/")
        found = answer(host, int(port), slash + path) or "nobody answers"
        faults += not "200" <= found[:3] < "500"
        print(f"{place}: {found[:3] if found[:1].isdigit() else found}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(others(sys.argv[1:]) if sys.argv[1:] else ready())
