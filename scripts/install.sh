#!/bin/bash
# Installs what building, the demo and the tests need, on Debian 12 or later, as root: scripts/install.sh [--tests]
#
# It says what it is about to install, installs nothing twice, starts no service and enables none. With --tests it also installs
# the test runner cargo-nextest, which is compiled where it is missing.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Package, and what it is for.
PACKAGES=$(
    cut -d'#' -f1 <<'LIST'
build-essential      # compiler and linker
protobuf-compiler    # the messages between nodes
ca-certificates      # downloads over TLS
curl                 # downloads, and asking the demo's site
containerd           # containers: used by its own socket, never as a service
runc                 # what containerd starts containers with
nftables             # to look at the balancer's rules; its library applies them
libnftables1         # the balancer's rules
iproute2             # to look at namespaces, links and neighbours
conntrack            # to look at connections
procps               # ps, for the scripts
iputils-ping         # tests
bind9-dnsutils       # dig, for tests
wrk                  # measurements
mmdebstrap           # the demo images' base
debian-archive-keyring # the demo images' packages are verified with it
python3              # writes the demo images
busybox-static       # the small image of tests
docker-registry      # tests of pulling images
faketime             # tests: a manager's clock jumps
e2fsprogs            # tests: a disk of its own for a manager's log
golang-cfssl         # tests of an external CA
rsyslog              # tests of the log driver syslog
LIST
)

# Services that these packages would start now or at the next boot.
SERVICES=(containerd docker-registry)

POLICY=/usr/sbin/policy-rc.d
SAVED_POLICY=$POLICY.before-skep

say() { echo "install: $*"; }
die() {
    echo "install: $*" >&2
    exit 1
}

is_installed() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

need_root() { [ "$(id -u)" = 0 ] || die "$* must be installed, and that needs root; run it as root"; }

# Runs a command whose output matters only when it fails.
quietly() {
    local log=$SCRATCH/log
    "$@" >"$log" 2>&1 </dev/null || {
        tail -30 "$log" >&2
        die "'$*' failed"
    }
}

SCRATCH=$(mktemp -d)
clean_up() {
    rm -rf "$SCRATCH"
    restore_policy
}
trap clean_up EXIT

# ---- no service is started -----------------------------------------------------------------------------------------------------

# Package scripts ask policy-rc.d before they start a service, with and without systemd.
forbid_services() {
    restore_policy
    if [ -e $POLICY ]; then mv $POLICY $SAVED_POLICY; fi
    printf '#!/bin/sh\n# Temporary, by scripts/install.sh of Skep.\nexit 101\n' >$POLICY
    chmod 755 $POLICY
}

# Also undoes what an interrupted run of this script has left.
restore_policy() {
    if grep -qs 'scripts/install.sh of Skep' $POLICY; then rm -f $POLICY; fi
    if [ -e $SAVED_POLICY ]; then mv $SAVED_POLICY $POLICY; fi
}

# ---- packages ------------------------------------------------------------------------------------------------------------------

install_packages() {
    local package missing=() new_services=()
    for package in $PACKAGES; do
        is_installed "$package" || missing+=("$package")
    done
    if [ ${#missing[@]} = 0 ]; then return; fi
    command -v apt-get >/dev/null || die "this is no Debian; install these, or what they are called here, by hand: ${missing[*]}"
    need_root "${missing[*]}"
    say "Debian packages: ${missing[*]}"
    for package in "${SERVICES[@]}"; do
        is_installed "$package" || new_services+=("$package")
    done
    forbid_services
    # One broken source of another vendor must not stop us: what is missing then shows below.
    apt-get -qq -o DPkg::Lock::Timeout=300 update </dev/null || say "some package lists could not be fetched; going on"
    DEBIAN_FRONTEND=noninteractive quietly apt-get -y -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold \
        install --no-install-recommends "${missing[@]}"
    restore_policy
    # A service that was there before is somebody's, and stays as it is.
    if [ ${#new_services[@]} -gt 0 ] && command -v systemctl >/dev/null; then
        systemctl --quiet disable "${new_services[@]}" 2>/dev/null || true
    fi
}

# ---- the docker command --------------------------------------------------------------------------------------------------------

# Only the client: Debian 13 has it as a package; Debian 12 packs it together with the daemon, so it is taken out of there.
install_docker_client() {
    if command -v docker >/dev/null; then return; fi
    need_root "the docker command"
    if [ -n "$(apt-cache search --names-only '^docker-cli$')" ]; then
        say "Debian package: docker-cli"
        DEBIAN_FRONTEND=noninteractive quietly apt-get -y -o DPkg::Lock::Timeout=300 install --no-install-recommends docker-cli
        return
    fi
    say "the docker command, into /usr/local/bin (of Debian's docker.io; the daemon is not installed)"
    (
        cd "$SCRATCH"
        quietly apt-get -o APT::Sandbox::User=root download docker.io
        dpkg-deb --fsys-tarfile docker.io_*.deb | tar -x ./usr/bin/docker
        install -m 755 usr/bin/docker /usr/local/bin/docker
    )
}

# ---- rust ----------------------------------------------------------------------------------------------------------------------

rust_version_needed() { sed -n 's/^rust-version *= *"\(.*\)"/\1/p' "$ROOT/Cargo.toml" | head -1; }

has_rust() {
    local have
    have=$(cargo --version 2>/dev/null | cut -d' ' -f2)
    [ -n "$have" ] && [ "$(printf '%s\n' "$1" "$have" | sort -V | head -1)" = "$1" ]
}

# Debian's own Rust is older than the code. An installed rustup is asked for the version, else rustup is installed first.
install_rust() {
    local needed triple tool home
    needed=$(rust_version_needed)
    if has_rust "$needed"; then return; fi
    say "Rust $needed, by rustup"
    if ! command -v rustup >/dev/null; then
        triple=$(uname -m)-unknown-linux-gnu
        (
            cd "$SCRATCH"
            quietly curl -fsS --retry 3 -O "https://static.rust-lang.org/rustup/dist/$triple/rustup-init" \
                -O "https://static.rust-lang.org/rustup/dist/$triple/rustup-init.sha256"
            # The file names a path of the machine that made it.
            [ "$(cut -d' ' -f1 rustup-init.sha256)" = "$(sha256sum rustup-init | cut -d' ' -f1)" ] || die "rustup-init is damaged; try again"
            chmod 755 rustup-init
            quietly ./rustup-init -y --no-modify-path --profile minimal --default-toolchain none
        )
        # On everybody's path, so that `make` finds them in this very run.
        home=${CARGO_HOME:-$HOME/.cargo}
        for tool in cargo rustc rustup rustdoc rustfmt cargo-fmt cargo-clippy clippy-driver; do
            if [ ! -e "/usr/local/bin/$tool" ]; then ln -s "$home/bin/$tool" "/usr/local/bin/$tool"; fi
        done
        hash -r
    fi
    quietly rustup toolchain install "$needed" --profile minimal --component rustfmt,clippy
    quietly rustup default "$needed"
    has_rust "$needed" || die "cargo is still not of version $needed; another one comes first on the PATH: $(command -v cargo)"
}

install_test_runner() {
    if cargo nextest --version >/dev/null 2>&1; then return; fi
    say "cargo-nextest (compiled, takes some minutes)"
    quietly cargo install --locked cargo-nextest
}

install_packages
install_docker_client
install_rust
if [ "${1:-}" = --tests ]; then install_test_runner; fi
say "everything needed is there"
