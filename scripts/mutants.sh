#!/usr/bin/env bash
# Does anybody notice when a rule is missing? Takes one out of a copy of the tree at a time. For those of
# crates/sim/mutants the simulator plays seeds until one breaks an invariant; those of crates/planner/mutants
# are for the planner's own tests: its cases as text first, then its properties.
#
#   scripts/mutants.sh [PATCH...]     (make mutants; without arguments all of them)
#
# Fails where a mutant survives 200 seeds or all tests, and where a patch does not apply any more: then the
# code has changed, and the rule is to be taken out of it anew.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD tree=$PWD/target/mutants
export CARGO_TARGET_DIR=$root/target

patches=("$@")
[ $# -gt 0 ] || patches=(crates/planner/mutants/*.patch crates/sim/mutants/*.patch)

rm -rf "$tree"
mkdir -p "$tree"
git ls-files -z | tar --create --null --files-from=- | tar --extract --directory="$tree"
# In the copy, git is only what applies patches: it must not find this repository.
apply() { GIT_CEILING_DIRECTORIES=$root/target git -C "$tree" apply "$@"; }

# Prints who notices; 1 where nobody does, 2 where it does not compile: that is no mutant.
play() {
    (cd "$tree" && cargo build --quiet --locked -p sim) || return 2
    ! "$CARGO_TARGET_DIR/debug/sim" 0..200 first
}
test_planner() {
    for tests in "--package types --package planner --lib" "--package planner --tests"; do
        # shellcheck disable=SC2086
        if ! said=$(cd "$tree" && cargo test --quiet --locked $tests 2>&1); then
            grep -m1 -oE '^    [a-z0-9_:]+$' <<<"$said" | tr -d ' ' || return 2
            return 0
        fi
    done
    return 1
}

survivors=0
for patch in "${patches[@]}"; do
    patch=$(realpath "$patch")
    name=$(basename "$patch" .patch)
    apply "$patch" || { echo "$name: the patch does not apply" >&2; exit 1; }
    case $patch in
    */planner/mutants/*) notices=test_planner ;;
    *) notices=play ;;
    esac
    said=$($notices) && noticed=0 || noticed=$?
    case $noticed in
    0) echo "$name: $(head -1 <<<"$said" | cut -c1-160)" ;;
    1)
        echo "$name: SURVIVES"
        survivors=$((survivors + 1))
        ;;
    *)
        echo "$name: does not compile" >&2
        exit 1
        ;;
    esac
    apply --reverse "$patch"
done
rm -rf "$tree"
[ $survivors -eq 0 ]
