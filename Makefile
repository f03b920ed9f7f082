# What each target calls is on its line; `environment` does nothing when .venv already holds the lock.
.PHONY: environment system nightly up down lint test test-long test-cluster test-faults bench load drill lock clean
bin := .venv/bin
unexport PYTHONDONTWRITEBYTECODE  # torch and transformers import in 4 s with their bytecode kept, in 12 s without
include deploy/telemetry.env
export $(shell sed -n 's/=.*//p' deploy/telemetry.env | grep -v '^\#')

environment:           ## .venv with exactly requirements.txt
	@deploy/environment.sh

system:                ## programs for tests that PyPI does not have, into .system
	@deploy/system.sh

nightly: environment   ## one night, followed to its end
	@$(bin)/nightshift nightly

up: environment        ## Airflow and the endpoint stay up
	@$(bin)/nightshift up

down: environment      ## stop what `up` started
	@$(bin)/nightshift down

lint: environment      ## style, types, who imports whom
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy
	PYTHONPATH=include:plugins $(bin)/lint-imports --no-logo

test: lint system      ## everything that needs no GPU
	deploy/scratch.sh $(bin)/pytest -q -n 2 --dist loadscope --no-loadscope-reorder

test-long: environment ## what takes minutes
	@deploy/system.sh browser
	$(bin)/pytest -q -m long

test-cluster: environment ## PostgreSQL, Redis, S3, two schedulers, two workers that share no disk
	@deploy/system.sh cluster
	$(bin)/pytest -q -m cluster

test-faults: environment ## one seed of what may go wrong in a night of the engine: make test-faults SEED=7
	@PYTHONPATH=include:plugins:. $(bin)/python -m tests.faults.night --seed $(SEED)

bench: environment     ## three nights, timed by stage: bench/night.json
	$(bin)/python bench/night.py

load: environment      ## what the internet throws at a gateway: bench/load.json
	$(bin)/python bench/load.py

drill: environment     ## bad candidates and a rollback, under load: bench/drill.json
	$(bin)/python bench/drill.py

lock: environment      ## requirements.in → requirements.txt, versions.json
	deploy/lock.sh

clean:                 ## scratch and caches; never var/
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .environments
