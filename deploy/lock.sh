#!/usr/bin/env bash
# Resolve requirements.in into requirements.txt: every version, with hashes for all but torch.
# Versions that the lock holds stay, unless they no longer fit: `deploy/lock.sh --upgrade` takes the newest.
# torch has no hash because its wheel differs by platform (CPU here, CUDA on a GPU node); its version is exact.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(command -v python3.11 || command -v python3)
. deploy/torch.sh
grep -v "^torch==" requirements.txt > requirements.new  # torch is found anew, as its build differs by platform
.venv/bin/uv pip compile requirements.in --override overrides.txt --python-version 3.11 --generate-hashes \
    --no-header --no-annotate "${torch_from[@]}" "$@" --output-file requirements.new --quiet
.venv/bin/python - <<'PY'
import pathlib, re
new = pathlib.Path("requirements.new")
blocks = re.split(r"\n(?=\S)", new.read_text())
kept = ["torch==2.13.0" if block.startswith("torch==") else block.rstrip() for block in blocks]
head = "# Made by `make lock` from requirements.in and overrides.txt; do not edit."
pathlib.Path("requirements.txt").write_text("\n".join([head, *kept]) + "\n")
new.unlink()
PY
PYTHONPATH=include .venv/bin/python -m nightshift.versions requirements.txt versions.json
# what the tests of each framework run in: the lock's versions wherever they fit, its own where pins collide
folder=tests/integrations/requirements
for of in langchain:--extra=langchain llamaindex:--extra=llamaindex griptape:--extra=griptape airflow:--extra=llamaindex langfuse:; do
    name=${of%%:*} extra=${of#*:} from=("$folder/${of%%:*}.in")
    [ -z "$extra" ] || from+=(pyproject.toml "$extra")
    grep -v "^torch==" requirements.txt > "$folder/$name.new"
    .venv/bin/uv pip compile "${from[@]}" --python-version 3.11 --generate-hashes \
        --no-header --no-annotate "$@" --output-file "$folder/$name.new" --quiet
    { echo "# Made by \`make lock\` from ${from[*]##*/}; do not edit."; cat "$folder/$name.new"; } > "$folder/$name.txt"
    rm "$folder/$name.new"
done
