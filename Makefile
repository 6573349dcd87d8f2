# Tapeline. Plain `make` explains every target.
# Options are environment variables; `make run FEED=replay` and `FEED=replay make run` are the same thing.

VENV ?= .venv
PY := $(VENV)/bin/python
# The first interpreter that is new enough; PYTHON=/path/to/python3 chooses another one.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { command -v "$$p"; break; }; done)

.PHONY: help run image up upgrade down stack faults-stack chart audit sbom test hands faults sim check bench compare fmt web venv lock clean
.DEFAULT_GOAL := help

help:
	@echo "make run     start everything on this machine; open http://127.0.0.1:8000, Ctrl-C stops it"
	@echo "             FEED=simulator+engine+news   simulator | engine | replay | massive | news, several with +"
	@echo "               NEWS_URL=wss://…                    news: https://, wss:// or simulated; none = the vendor's"
	@echo "               SYMBOLS=500 RATE=2000 SEED=7        simulator: how many symbols, events/s, which universe"
	@echo "               BOTS_RATE=50 BOTS_SEED=7            engine: orders a second of the bots on the built-in exchange"
	@echo "               TAPE=day.ndjson.gz SPEED=1 LOOP=0   replay: what, how fast (1, 10, … or max), again and again"
	@echo "               API_KEY=… MARKET=stocks             massive: your key; stocks options crypto forex indices"
	@echo "               REST_URL=https://api.massive.com    massive: also previous days, usual volumes, floats"
	@echo "             MDQ_URL=amqp://guest:guest@127.0.0.1:5672/   RabbitMQ instead of the embedded queue"
	@echo "             MDC_URL=redis://127.0.0.1:6379/0             Redis instead of the embedded cache"
	@echo "             MDP_WORKERS=1 WDS_WORKERS=1 SCP_PORT=8000 WDS_PORT=8400 RUN_DIR=.run LOG_LEVEL=info"
	@echo "make up      the same in containers (deploy/compose.yaml): needs a Docker engine with compose; make down ends it"
	@echo "             PROFILES=exchange,standby,metrics,tls   SCALE='mdp=2 wds=2'   PUBLIC_URL=https://desk.example.com (tls)"
	@echo "make upgrade TAPELINE_IMAGE=tapeline:0.2   the same to another version, with clients connected (deploy/README.md)"
	@echo "             BUILD=no TAPELINE_IMAGE=tapeline:0.2   no build, that image; what is given each time: deploy/settings/stack.env"
	@echo "             OWN=own.yaml   a compose file of yours on top; settings: deploy/settings/<service>.env (deploy/README.md)"
	@echo "make image   build the container image, TAPELINE_IMAGE=tapeline"
	@echo "make stack   build the image, replay a recorded day through the stack, compare every number; make faults-stack with faults"
	@echo "make chart   the Helm chart's and Compose's tests alone; HELM=/path/to/helm chooses the helm"
	@echo "make audit   known vulnerabilities in what the image and the page pin (asks the registries' advisories)"
	@echo "make sbom    bill of materials of the image from its lock, CycloneDX: SBOM=tapeline.cdx.json"
	@echo "make test    every test, against RabbitMQ, Redis and a browser too (installed when missing, or TEST_MDQ_URL="
	@echo "             TEST_MDC_URL=, or Docker); ARGS='tests/wds -k token' chooses"
	@echo "make hands   a seeded monkey on the page in a browser for ten minutes; HANDS_S=3600 HANDS_SEED=9"
	@echo "make faults  the slow faults: kills of exchange, standby and consumer as often as they are promised, and what make test leaves out"
	@echo "make sim     the data plane on a virtual clock, with faults drawn from seeds; SEEDS=200 FIRST=1 JOBS=0 (0 = every core)"
	@echo "make check   ruff, mypy --strict, layout rules, TypeScript; what continuous integration runs"
	@echo "make bench   every benchmark as JSON lines; BENCH=listener only that one; PROFILE=1 where the time goes"
	@echo "make compare REV=main   this tree beside another revision, in turn; BENCH=steady,pipeline ROUNDS=3 ARGS='--rate 8000'"
	@echo "make fmt     format and mend what ruff can"
	@echo "make web     build the browser page"
	@echo "make venv    install the pinned packages into $(VENV)"
	@echo "make lock    resolve pyproject.toml into requirements.lock and requirements-dev.lock again"
	@echo "make clean   remove what was built, installed or run here"

run: $(VENV)/installed
	@exec $(PY) -m deploy.local

TAPELINE_IMAGE ?= tapeline
SECRETS ?= $(CURDIR)/deploy/secrets
SBOM ?= tapeline.cdx.json
# What a stack is given at each `make up`, one NAME=value a line; the command line wins.
STACK ?= deploy/settings/stack.env
ifneq ($(filter up upgrade down image,$(MAKECMDGOALS)),)
-include $(STACK)
export $(shell test ! -f "$(STACK)" || sed -n 's/^\([A-Z][A-Z0-9_]*\)=.*/\1/p' "$(STACK)")
endif
PROFILES ?=
comma := ,
profiles := $(subst $(comma), ,$(PROFILES))
COMPOSE = TAPELINE_IMAGE=$(TAPELINE_IMAGE) SECRETS=$(SECRETS) $(DOCKER_COMPOSE)
DOCKER_COMPOSE = docker compose -f deploy/compose.yaml \
	$(if $(filter tls,$(profiles)),-f deploy/compose.tls.yaml) $(if $(OWN),-f $(OWN)) $(foreach one,$(filter-out tls,$(profiles)),--profile $(one))
up upgrade: export FEED ?= simulator$(if $(filter exchange,$(profiles)),+engine)+news
ifneq ($(filter tls,$(profiles)),)
up upgrade down: export PUBLIC_URL ?= https://127.0.0.1
up upgrade down: export WDS_PUBLIC_URL ?= $(patsubst https://%,wss://%,$(PUBLIC_URL))/v1/stream
endif

# Previous closes of the simulated symbols, for boards and changes; MDP_REFERENCE names a table of your own in deploy/stack/reference.
closes = $(if $(MDP_REFERENCE),,$(if $(findstring simulator,$(FEED)),simulator-$(or $(SYMBOLS),500)-$(or $(SEED),7).csv))
closes_name = $(if $(closes),MDP_REFERENCE=/reference/$(closes))

# Companies and older candles of the simulated market, of which the listener that plays it tells; with REST_URL the vendor is asked.
simulated = $(if $(or $(REST_URL),$(if $(findstring simulator,$(FEED)),,no)),,SIMULATED_URL=http://mdl:9101/simulated)

# A container whose limit of open files is above the Docker engine's own does not start at all.
files_open = NOFILE=$${NOFILE:-$$(docker run --rm --network none $(TAPELINE_IMAGE) sh -c \
	'most=$$(ulimit -Hn); if [ "$$most" = unlimited ] || [ "$$most" -gt 65536 ]; then most=65536; fi; echo $$most')}

start = $(files_open) $(closes_name) $(simulated) $(COMPOSE) up -d
healthy = TAPELINE_IMAGE=$(TAPELINE_IMAGE) SECRETS=$(SECRETS) sh deploy/stack/healthy.sh $(DOCKER_COMPOSE)
scales = $(foreach one,$(SCALE),--scale $(one))

image:
	@docker build -f deploy/Dockerfile -t $(TAPELINE_IMAGE) --build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown) .

# The secrets are made by the image itself, as this user: nothing but a Docker engine is needed.
prepared: $(if $(filter no,$(BUILD)),,image)
	@mkdir -p "$(SECRETS)"
	@docker run --rm --network none --user "$$(id -u):$$(id -g)" -v "$(SECRETS):/secrets" $(TAPELINE_IMAGE) \
		python -m deploy.credentials /secrets $(if $(filter tls,$(profiles)),--tls --host $(patsubst https://%,%,$(PUBLIC_URL)))
	@$(if $(closes),docker run --rm --network none $(TAPELINE_IMAGE) python -m mdl reference --symbols $(or $(SYMBOLS),500) \
		--seed $(or $(SEED),7) > deploy/stack/reference/$(closes) && chmod 644 deploy/stack/reference/$(closes))

up: prepared
	@$(start) $(scales)
	@$(healthy)
	@echo "open $${PUBLIC_URL:-http://127.0.0.1:$${SCP_PORT:-8000}}"
	@$(COMPOSE) exec -T scp sh -c 'test ! -e $$RUN_DIR/welcome.url || { printf "this link makes the first administrator, once, within a day: "; cat $$RUN_DIR/welcome.url; }'

# Data services and processors beside their successors, so that little waits in a queue for longer than it lives; then all else.
upgrade: prepared
	@for one in wds mdp; do \
		old=$$($(COMPOSE) ps -q $$one); \
		$(start) --no-recreate --scale $$one=$$((2 * $$(echo "$$old" | wc -l))) $$one && $(healthy) \
			&& docker stop $$old && docker rm $$old || exit 1; \
	done
	@$(MAKE) --no-print-directory up BUILD=no

down:
	@$(COMPOSE) --profile '*' down --remove-orphans $(if $(VOLUMES),--volumes)

stack: $(VENV)/installed-dev
	@exec $(PY) -m tests.containers $(ARGS)

faults-stack: $(VENV)/installed-dev
	@exec $(PY) -m tests.containers --faults $(ARGS)

chart: $(VENV)/installed-dev
	@PY=$(PY) exec tests/run tests/helm tests/deploy/test_compose.py tests/deploy/test_alerts.py $(ARGS)

# A package that the advisories do not know fails: what was not looked at is not said to be sound.
audit: $(VENV)/installed-dev
	@$(PY) -m uv tool run --from pip-audit==2.9.0 pip-audit --strict --require-hashes --disable-pip -r deploy/requirements.lock
	@command -v npm >/dev/null || { echo "make: audit of the page needs npm: install Node.js 20.19 or newer" >&2; exit 1; }
	@cd scp/web && npm audit --omit=dev --audit-level=high

sbom: $(VENV)/installed-dev
	@$(PY) -m uv tool run --from cyclonedx-bom==7.1.0 cyclonedx-py requirements deploy/requirements.lock --pyproject pyproject.toml \
		--output-reproducible --output-file $(SBOM)
	@echo "$(SBOM)"

test: $(VENV)/installed-dev
	@PY=$(PY) exec tests/run $(ARGS)

hands: $(VENV)/installed-dev
	@TEST_FAULTS=1 HANDS_S=$${HANDS_S:-600} PY=$(PY) exec tests/run tests/live/page/test_hands.py -s -k monkey

faults: $(VENV)/installed-dev
	@TEST_FAULTS=1 PY=$(PY) exec tests/run tests/live/test_engine_kills.py tests/live/test_standby.py tests/live/test_oms.py \
		tests/live/test_message_store_script.py tests/live/test_quiet.py tests/live/test_bots.py tests/live/page tests/deploy/test_local.py tests/engine/oms/test_consumer.py \
		tests/engine/core/test_matching.py tests/engine/journal/test_crashes.py tests/bench tests/engine/gateway/test_benches.py \
		tests/sim/test_seeds.py tests/sim/test_unmended.py tests/live/test_days.py tests/live/test_cluster.py $(ARGS)

sim: $(VENV)/installed-dev
	@exec $(PY) -m tests.sim

check: $(VENV)/installed-dev
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(PY) -m pytest tests/test_layout.py
	@$(PY) -m scp.build --check

bench: $(VENV)/installed-dev
	@exec $(PY) -m tests.bench $(if $(PROFILE),--profile) $(BENCH)

compare: $(VENV)/installed-dev
	@test -n "$(REV)" || { echo "make: which revision? make compare REV=main BENCH=steady,pipeline" >&2; exit 1; }
	@exec $(PY) -m tests.bench.compare $(REV) $(if $(BENCH),--bench $(BENCH)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(ARGS),-- $(ARGS))

fmt: $(VENV)/installed-dev
	@$(PY) -m ruff check --fix-only --quiet .
	@$(PY) -m ruff format .

web: $(VENV)/installed
	@exec $(PY) -m scp.build

venv: $(VENV)/installed

lock: $(VENV)/installed-dev
	$(PY) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
		--upgrade --extra web --extra postgres pyproject.toml -o requirements.lock
	$(PY) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
		--upgrade --extra web --extra postgres --extra otel --extra dev pyproject.toml -c requirements.lock -o requirements-dev.lock
	$(PY) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
		--upgrade --extra postgres --extra otel pyproject.toml -c requirements.lock -o deploy/requirements.lock

clean:
	rm -rf $(VENV) .run build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -rf scp/web/node_modules scp/web/.built-tests scp/apps/_default/static/app
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What pip says goes to stderr, so that `make bench` prints nothing but results on stdout.
$(PY):
	@test -n "$(PYTHON)" || { echo "make: Tapeline needs Python 3.11 or newer with venv: apt-get install python3 python3-venv," \
		"or name one with PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "making $(VENV) with $(PYTHON)" >&2
	@"$(PYTHON)" -m venv $(VENV) >&2

$(VENV)/installed: requirements.lock | $(PY)
	@echo "installing the pinned packages (once, about half a minute)" >&2
	@$(PY) -m pip install --disable-pip-version-check --only-binary :all: --require-hashes -r requirements.lock >&2
	@touch $@

$(VENV)/installed-dev: requirements-dev.lock $(VENV)/installed | $(PY)
	@echo "installing the pinned packages of the tests (once, about half a minute)" >&2
	@$(PY) -m pip install --disable-pip-version-check --only-binary :all: --require-hashes -r requirements-dev.lock >&2
	@touch $@
