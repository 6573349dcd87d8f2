#!/bin/sh
# Makes local stand-ins, of Debian's packages, for the public images that the stack needs and this machine can neither find nor pull.
# Needs a running Docker engine, and for the first of them mmdebstrap. For tests only: the images carry this machine's certificates.
set -e

has() { docker image inspect "$1" >/dev/null 2>&1 || { [ -n "$TEST_PULL" ] && docker pull -q "$1" >/dev/null 2>&1; }; }

has python:3.11-slim || {
  command -v mmdebstrap >/dev/null || { echo "stand-ins: no image python:3.11-slim, no registry (TEST_PULL=1) and no mmdebstrap: apt-get install mmdebstrap" >&2; exit 1; }
  mmdebstrap --variant=minbase --include=ca-certificates,python3,python3-venv \
    --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='Acquire::Check-Date "false"' \
    --customize-hook='chroot "$1" python3 -m venv /usr/local' \
    --customize-hook='copy-in /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs' \
    bookworm - < /etc/apt/sources.list.d/debian.sources |
    docker import -c 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 PIP_CERT=/etc/ssl/certs/ca-certificates.crt' \
      -c 'CMD ["python3"]' - python:3.11-slim
}

build() { # build TAG PACKAGES, further lines of the Dockerfile on stdin
  has "$1" && { cat >/dev/null; return; }
  { printf 'FROM python:3.11-slim\nRUN apt-get update && apt-get install -y --no-install-recommends %s && rm -rf /var/lib/apt/lists/*\n' "$2"; cat; } |
    docker build -q -t "$1" - >/dev/null
}

build redis:7 redis-server <<'D'
RUN install -d -o redis -g redis /data
CMD ["redis-server", "--protected-mode", "no"]
D
build rabbitmq:3-management rabbitmq-server <<'D'
ENV HOME=/var/lib/rabbitmq RABBITMQ_LOGS=-
RUN mkdir -p /etc/rabbitmq/conf.d && printf "[rabbitmq_management,rabbitmq_prometheus]." > /etc/rabbitmq/enabled_plugins && chown -R rabbitmq:rabbitmq /etc/rabbitmq /var/lib/rabbitmq
USER rabbitmq
CMD ["/usr/lib/rabbitmq/bin/rabbitmq-server"]
D
build postgres:17 postgresql <<'D'
RUN ln -s /usr/lib/postgresql/*/bin/* /usr/local/bin/ 2>/dev/null; install -d -o postgres -g postgres -m 0700 /var/lib/postgresql/data && chmod 3777 /var/run/postgresql && mkdir -p /docker-entrypoint-initdb.d \
 && printf '%s\n' '#!/bin/sh' 'set -e' \
    'if [ ! -s "$PGDATA/PG_VERSION" ]; then' \
    '  initdb -U "$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" --auth-local=trust --auth-host=scram-sha-256 >/dev/null' \
    '  echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"' \
    '  pg_ctl -w -o "-c listen_addresses= -c unix_socket_directories=/var/run/postgresql" start >/dev/null' \
    '  createdb -U "$POSTGRES_USER" "$POSTGRES_DB"' \
    '  for file in /docker-entrypoint-initdb.d/*.sql; do psql -q -U "$POSTGRES_USER" -d "$POSTGRES_DB" -f "$file"; done' \
    '  pg_ctl -w stop >/dev/null' 'fi' \
    'exec postgres -c listen_addresses="*" -c unix_socket_directories=/var/run/postgresql' > /usr/local/bin/start-postgres && chmod 755 /usr/local/bin/start-postgres
CMD ["start-postgres"]
D
build nginx:1.28 nginx-light </dev/null
build prom/prometheus:v2.53.5 prometheus </dev/null
