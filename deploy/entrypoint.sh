#!/usr/bin/env bash
# Every package's telemetry off, then the command.
set -a
. "$(dirname "$0")/telemetry.env"
set +a
exec "$@"
