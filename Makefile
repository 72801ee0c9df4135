# Habits. `deploy/install test` first; integration, e2e and chaos need root.
PYTHON = .venv/bin/python
PACKAGES = process store activator ingress autoscaler nodeagent registry cli deploy

.PHONY: check test integration e2e chaos all bench format

check:        ## style, types, arrows: seconds
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy $(addprefix -p ,$(PACKAGES))
	.venv/bin/lint-imports

test:         ## unit tests and simulations: no sockets, no root
	$(PYTHON) -m pytest -q tests/unit tests/simulation

integration:  ## contracts and integration: real etcd, NATS, containerd, registry
	$(PYTHON) -m pytest -q tests/contract tests/integration

e2e:          ## whole engines and real images
	$(PYTHON) -m pytest -q tests/e2e

chaos:        ## kills, leaks, rolling changes
	$(PYTHON) -m pytest -q tests/chaos

all:          ## what CI runs
	deploy/test

bench:        ## cold and warm, beside the peers
	deploy/bench cold
	deploy/bench warm

format:
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .
