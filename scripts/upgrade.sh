#!/usr/bin/env bash
# Updates a lab from a former release to this tree and back, machine by machine, below a client that asks
# all the while: nothing may fail. `docs/upgrade.md` says what operators do.
#
#   scripts/upgrade.sh PROGRAM     (the skep binary of the former release)
set -euo pipefail
[ $# -eq 1 ] || { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2; }
SKEP_BEFORE=$(realpath "$1")
export SKEP_BEFORE
cd "$(dirname "$0")/.."
cargo build --locked -p skep
cargo nextest run --locked -p e2e --test upgrade --run-ignored only
