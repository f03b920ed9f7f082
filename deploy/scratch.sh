#!/usr/bin/env bash
# Run a command whose temporary files are in memory, where there is room for them: tests write hundreds of thousands of
# small files, and wait for the disk a tenth of their time. What a command that fails has left stays, for who looks at it.
set -u
memory=/dev/shm room=$((4 << 20)) free=$((12 << 20)) # kB
has() { [ "$(df --output=avail "$memory" 2>/dev/null | tail -1)" -ge "$room" ] 2>/dev/null; }
spare() { [ "$(sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' /proc/meminfo)" -ge "$free" ] 2>/dev/null; }
if has && spare && folder=$(mktemp -d "$memory/tests-XXXXXX" 2>/dev/null); then
  if printf '#!/bin/sh\n' >"$folder/runs" && chmod +x "$folder/runs" && "$folder/runs" 2>/dev/null; then
    trap : INT # it ends what it runs, and then this tells where that was
    TMPDIR=$folder "$@"
    code=$?
    if [ "$code" -ne 0 ]; then
      echo "temporary files are in memory, at $folder; remove them when you have looked" >&2
      exit "$code"
    fi
    rm -rf "$folder"
    exit
  fi
  rm -rf "$folder" # there nothing may be run
fi
exec "$@"
