#!/usr/bin/env bash
# Does the simulator notice when a rule is missing? Takes one out of a copy of the tree at a time, and
# plays seeds until one breaks an invariant.
#
#   scripts/mutants.sh [PATCH...]     (make mutants; without arguments all of crates/sim/mutants)
#
# Fails where a mutant survives 200 seeds, and where a patch does not apply any more: then the code has
# changed, and the rule is to be taken out of it anew.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD tree=$PWD/target/mutants
export CARGO_TARGET_DIR=$root/target

patches=("$@")
[ $# -gt 0 ] || patches=(crates/sim/mutants/*.patch)

rm -rf "$tree"
mkdir -p "$tree"
git ls-files -z | tar --create --null --files-from=- | tar --extract --directory="$tree"
# In the copy, git is only what applies patches: it must not find this repository.
apply() { GIT_CEILING_DIRECTORIES=$root/target git -C "$tree" apply "$@"; }

survivors=0
for patch in "${patches[@]}"; do
    patch=$(realpath "$patch")
    name=$(basename "$patch" .patch)
    apply "$patch" || { echo "$name: the patch does not apply" >&2; exit 1; }
    (cd "$tree" && cargo build --quiet --locked -p sim)
    if said=$("$CARGO_TARGET_DIR/debug/sim" 0..200 first); then
        echo "$name: SURVIVES"
        survivors=$((survivors + 1))
    else
        echo "$name: $(head -1 <<<"$said" | cut -c1-160)"
    fi
    apply --reverse "$patch"
done
rm -rf "$tree"
[ $survivors -eq 0 ]
