#!/usr/bin/env bash
# Make .venv hold exactly requirements.txt. Does nothing when it already does.
# Needs Python 3.11 with pip; uv comes from PyPI into the environment itself.
set -euo pipefail
cd "$(dirname "$0")/.."
exec 9>.environment.lock && flock 9   # of two who call at once one installs, and the other finds it done
stamp=.venv/locked.sha256
wanted=$(sha256sum requirements.txt | cut -d' ' -f1)
if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then exit 0; fi
python=$(command -v python3.11 || command -v python3)
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' ||
    { echo "environment: Python 3.11 is needed, $("$python" --version) was found; install it or put it first on PATH" >&2; exit 2; }
[ -x .venv/bin/python ] || "$python" -m venv .venv
.venv/bin/uv --version >/dev/null 2>&1 || "$python" -m pip --python .venv/bin/python install --quiet "uv==0.13.9"
. deploy/torch.sh
echo "environment: installing $(grep -c == requirements.txt) packages into .venv (840 MB to download the first time)" >&2
export VIRTUAL_ENV=$PWD/.venv
.venv/bin/uv pip sync --quiet requirements.txt "${torch_from[@]}"
.venv/bin/uv pip install --quiet torch==2.13.0 "${torch_from[@]}"   # the CUDA libraries that its build names, where it does
.venv/bin/uv pip install --quiet --no-deps --no-build-isolation --editable .   # the command `nightshift`
echo "$wanted" > "$stamp"
