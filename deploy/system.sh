#!/usr/bin/env bash
# Programs that tests run and PyPI does not have, unpacked from Debian's packages into .system: nothing is installed.
# `deploy/system.sh` brings promtool, `deploy/system.sh cluster` PostgreSQL and Redis, `deploy/system.sh browser` Chromium
# and its driver. Does nothing for what is there.
# Where there is no apt it says so, and the tests that need one fail with a sentence.
set -euo pipefail
cd "$(dirname "$0")/.."
exec 9>.environment.lock && flock 9

# bring PROGRAM PATH PACKAGE ALL: the program, at that path of .system; alone, or with ALL that is in its package and in
# those that this machine lacks of what it needs
bring() {
    { command -v "$1" || [ -x ".system/$2" ]; } >/dev/null && return
    command -v apt-get >/dev/null || { echo "system: no apt here; put $1 on PATH for its tests" >&2; return; }
    echo "system: fetching Debian's package $3 for $1" >&2
    folder=$(mktemp -d) && mkdir "$folder/partial"
    local ask=(apt-get -qq -o APT::Sandbox::User=root)
    if [ -n "${4:-}" ]; then
        ask+=(install --yes --no-install-recommends --download-only -o "Dir::Cache::archives=$folder" "$3")
    else
        ask+=(download "$3")
    fi
    fetch() { (cd "$folder" && "${ask[@]}" >/dev/null 2>&1); }
    if fetch || { [ "$(id -u)" = 0 ] && apt-get update -qq && fetch; }; then
        mkdir -p .system
        for deb in "$folder"/*.deb; do dpkg-deb --fsys-tarfile "$deb" | tar -x -C .system ${4:-"./$2"}; done
    else
        echo "system: apt did not bring $3; put $1 on PATH for its tests" >&2
    fi
    rm -rf "$folder"
}

if [ "${1:-}" = cluster ]; then
    bring postgres usr/lib/postgresql/15/bin/postgres postgresql-15 ./usr
    bring redis-server usr/bin/redis-server redis-server ./usr
elif [ "${1:-}" = browser ]; then
    bring chromedriver usr/bin/chromedriver chromium-driver ./usr
else
    bring promtool usr/bin/promtool prometheus
fi
