# `make demo` and `make test` set up everything they need in .venv.
PYTHON ?= python3
BENCH ?= --rounds 6 --seconds 8 --steps 0
BIN := .venv/bin
READY := .venv/.ready
DEBIAN := prometheus prometheus-alertmanager chromium chromium-driver

.PHONY: help demo grafana test check format docs bench detection acceptance debian clean

help:
	@echo "make demo        two runs on real data, one turns NaN; a report of it"
	@echo "make grafana     the service, Prometheus, Grafana and the demo, with Docker"
	@echo "make test        all tests, once (Debian packages too, when root)"
	@echo "make check       ruff, mypy, generated files are current"
	@echo "make docs        write the generated parts of the documentation again"
	@echo "make bench       what watching costs, against plain fit: 20 minutes"
	@echo "make detection   what the rules find in 193 labelled programs: two hours"
	@echo "make acceptance  all of it at length, first step, memory, long run: hours"

$(READY): pyproject.toml .ci/constraints.txt
	@$(PYTHON) -c "import ensurepip, venv" 2>/dev/null || \
		{ test "$$(id -u)" = 0 && apt-get update -q && \
		apt-get install -y -q python3-venv; } || \
		{ echo "This Python has no venv: install python3-venv."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check \
		-c .ci/constraints.txt -e ".[all,dev]"
	@touch $(READY)

demo: $(READY)
	$(BIN)/gradwatch demo --logdir runs

grafana: .secrets/grafana
	@docker compose version >/dev/null 2>&1 || \
		{ echo "Docker has no compose here: see README, Grafana."; exit 1; }
	@mkdir -p runs
	@echo "Grafana: http://127.0.0.1:3000/, user admin, password in $<"
	GRADWATCH_GRAFANA_PASSWORD_FILE=./$< docker compose --profile demo up --build

# Grafana's own user must read it; the folder is nobody else's.
.secrets/grafana:
	@mkdir -p -m 700 .secrets
	@$(PYTHON) -c "import secrets; print(secrets.token_urlsafe())" > $@.new
	@chmod 444 $@.new
	@mv $@.new $@

debian:
	@missing=""; \
	for p in $(DEBIAN); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	test -z "$$missing" || \
		{ test "$$(id -u)" = 0 && apt-get update -q && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -q \
		--no-install-recommends $$missing; } || \
		{ echo "Install these Debian packages first:$$missing"; exit 1; }

test: $(READY) debian
	$(BIN)/python -m pytest -n 2 --dist worksteal --durations=15

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/cog --check -P README.md CONTRIBUTING.md
	$(BIN)/gradwatch monitoring build --check

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)
	$(BIN)/cog -r -P README.md CONTRIBUTING.md
	$(BIN)/gradwatch monitoring build

bench: $(READY)
	$(BIN)/python -m tests.bench.overhead $(BENCH) --json build/bench.json

detection: $(READY)
	$(BIN)/python -m gradwatch.testing record --out build/zoo --healthy-seeds 5
	$(BIN)/python -m gradwatch.testing judge --out build/zoo \
		--report tests/acceptance/results/detection.md

acceptance: $(READY) detection
	$(BIN)/python -m pytest -n 2 -m acceptance
	$(BIN)/python -m tests.acceptance

clean:
	rm -rf .venv dist build .pytest_cache .mypy_cache .ruff_cache
