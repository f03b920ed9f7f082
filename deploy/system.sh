#!/usr/bin/env bash
# Programs that tests run and PyPI does not have, unpacked from Debian's packages into .system: nothing is installed.
# Does nothing when they are there. Where there is no apt it says so, and the tests that need one fail with a sentence.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v promtool >/dev/null && exit 0
[ -x .system/usr/bin/promtool ] && exit 0
command -v apt-get >/dev/null || { echo "system: no apt here; put promtool (of Prometheus) on PATH for its tests" >&2; exit 0; }
exec 9>.environment.lock && flock 9
[ -x .system/usr/bin/promtool ] && exit 0
folder=$(mktemp -d) && trap 'rm -rf "$folder"' EXIT
fetch() { (cd "$folder" && apt-get download -qq -o APT::Sandbox::User=root prometheus >/dev/null 2>&1); }
echo "system: fetching Debian's package prometheus (20 MB) for promtool" >&2
fetch || { [ "$(id -u)" = 0 ] && apt-get update -qq && fetch; } ||
    { echo "system: apt did not bring prometheus; put promtool on PATH for its tests" >&2; exit 0; }
dpkg-deb --fsys-tarfile "$folder"/prometheus_*.deb | tar -x -C "$folder" ./usr/bin/promtool
mkdir -p .system/usr/bin && mv "$folder/usr/bin/promtool" .system/usr/bin/promtool
