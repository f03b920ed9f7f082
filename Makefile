# What each target calls is on its line; `environment` does nothing when .venv already holds the lock.
.PHONY: environment lint test lock clean
bin := .venv/bin
export PYTHONDONTWRITEBYTECODE := 1

environment:           ## .venv with exactly requirements.txt
	@deploy/environment.sh

lint: environment      ## style, types, who imports whom
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy
	PYTHONPATH=include:plugins $(bin)/lint-imports --no-logo

test: lint             ## everything that needs no GPU
	$(bin)/pytest -q -n 2 --dist loadscope

lock: environment      ## requirements.in → requirements.txt, versions.json
	deploy/lock.sh

clean:                 ## scratch and caches; never var/
	rm -rf .mypy_cache .ruff_cache .pytest_cache .nightshift/clones
