#!/bin/bash
# Builds the demo images from Debian packages: images/build.sh [NAME ...], all of them when no name is given. Runs as root.
#
# Each image becomes IMAGES_OUT/NAME.tar, which `docker load`, `ctr images import` and `skepd` all read. Packages come from wherever
# the apt of this machine takes its Debian packages from. An image whose recipe has not changed since it was built is left alone.
#
#   IMAGES_OUT    where the tars go                               (default: target/images under the repository)
#   IMAGES_CACHE  downloaded packages, layers and stamps          (default: IMAGES_OUT/cache)
#   IMAGES_FRESH  1 builds everything anew with today's packages
#
# See images/README.md for the shape of a recipe.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
OUT=${IMAGES_OUT:-$(dirname "$HERE")/target/images}
CACHE=${IMAGES_CACHE:-$OUT/cache}
FRESH=${IMAGES_FRESH:-}
ALL_IMAGES=(busybox nginx client wordpress mariadb)

STARTED=$(date +%s%N)
say() {
    local tenths=$((($(date +%s%N) - STARTED) / 100000000))
    printf 'images %4d.%ds  %s\n' $((tenths / 10)) $((tenths % 10)) "$*"
}
die() {
    echo "images: $*" >&2
    exit 1
}
megabytes() { echo "$((($(stat -c %s "$1") + 500000) / 1000000)) MB"; }
# The lines of a list file without its comments.
entries() { grep -v '^#' "$1" || true; }

# ---- what is already there ---------------------------------------------------------------------------------------------------

# A digest of everything that decides what an image contains, except the state of the Debian archive.
# $@: files and directories.
recipe_digest() {
    {
        dpkg --print-architecture
        debian_release
        find "$HERE/build.sh" "$HERE/image.py" "$@" -type f -printf '%P %m\n' | sort
        find "$HERE/build.sh" "$HERE/image.py" "$@" -type f -print0 | sort -z | xargs -0 cat
    } | sha256sum | cut -d' ' -f1
}
image_digest() {
    if [ "$1" = busybox ]; then recipe_digest "$HERE/recipes/busybox"; else recipe_digest "$HERE/base" "$HERE/recipes/$1"; fi
}
is_current() { # $1: artefact, $2: stamp file, $3: digest
    [ -z "$FRESH" ] && [ -e "$1" ] && [ "$(cat "$2" 2>/dev/null)" = "$3" ]
}

# ---- the Debian archive, as the machine's own apt sees it --------------------------------------------------------------------

debian_release() {
    # shellcheck source=/dev/null
    (. /etc/os-release && echo "${VERSION_CODENAME:?this machine does not name its Debian release}")
}

# One line for each of the machine's own Debian sources of its release; those of other vendors stay out.
debian_sources() {
    apt-get indextargets --format '$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)' 'Created-By: Packages' |
        awk -F'|' -v release="$(debian_release)" '
            $1 == "Debian" && $2 !~ /^cdrom:/ && index($3, release) == 1 && $4 == "main" {
                print "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]", $2, $3, $4 }' | sort -u
}

# Writes WORK/sources.list, WORK/acquire.conf (proxies and the like) and WORK/apt.conf, and fetches the package lists.
prepare_apt() {
    [ -e "$WORK/apt.conf" ] && return
    debian_sources >"$WORK/sources.list"
    if [ ! -s "$WORK/sources.list" ]; then
        # A machine that never fetched its lists does not know yet what its sources are.
        apt-get -qq update </dev/null
        debian_sources >"$WORK/sources.list"
    fi
    [ -s "$WORK/sources.list" ] || die "apt of this machine has no Debian source for $(debian_release); add one to /etc/apt"
    # Only the lists of packages are wanted, so the machine's other index files (translations, icons) are left out.
    apt-config dump Acquire | grep -v '^Acquire::IndexTargets' >"$WORK/acquire.conf"
    {
        cat "$WORK/acquire.conf"
        # Nothing else of the machine's apt: its hooks would run inside the image.
        echo 'Dir::Etc::parts "/dev/null"; Dir::Etc::main "/dev/null"; Dir::Etc::sourceparts "/dev/null";'
        echo "Dir::Etc::sourcelist \"$WORK/sources.list\"; Dir::Etc::netrcparts \"/etc/apt/auth.conf.d\";"
        echo "Dir::State::lists \"$WORK/lists\"; Dir::Cache::pkgcache \"\"; Dir::Cache::srcpkgcache \"\";"
        echo 'Acquire::Languages "none"; APT::Install-Recommends "false"; APT::Sandbox::User "root"; Dpkg::Use-Pty "0";'
        echo 'Binary::apt-get::APT::Keep-Downloaded-Packages "true"; APT::Keep-Downloaded-Packages "true";'
    } >"$WORK/apt.conf"
    mkdir -p "$WORK/lists/partial"
    APT_CONFIG=$WORK/apt.conf apt-get -qq update </dev/null
    say "package lists fetched"
}

# Unpacks packages without installing them. $1: target directory, then package names; each gets a directory of its own.
unpack_packages() {
    local target=$1 package
    shift
    mkdir -p "$CACHE/debs"
    for package in "$@"; do
        (cd "$CACHE/debs" && APT_CONFIG=$WORK/apt.conf apt-get -qq download "$package" </dev/null)
        mkdir -p "$target/$package"
        # The newest file of that name: an older version may lie in the cache.
        dpkg-deb -x "$(find "$CACHE/debs" -maxdepth 1 -name "${package}_*.deb" -printf '%C@ %p\n' | sort -n | tail -1 | cut -d' ' -f2-)" \
            "$target/$package"
    done
}

# ---- layers ------------------------------------------------------------------------------------------------------------------

# Makes CACHE/base.layer.tar, and WORK/base as the same tree unpacked.
prepare_base() {
    [ -d "$WORK/base" ] && return
    local digest
    digest=$(recipe_digest "$HERE/base")
    if is_current "$CACHE/base.layer.tar" "$CACHE/base.stamp" "$digest"; then
        mkdir "$WORK/base"
        tar -C "$WORK/base" -xpf "$CACHE/base.layer.tar" --numeric-owner
        return
    fi
    say "base: bootstrapping Debian $(debian_release) ..."
    TMPDIR=$WORK mmdebstrap --quiet --mode=root --variant=minbase \
        --aptopt="$WORK/acquire.conf" --dpkgopt="$HERE/base/dpkg.cfg" \
        --include="$(entries "$HERE/base/packages" | paste -sd,)" --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
        --customize-hook="$HERE/base/customize.sh" \
        "$(debian_release)" "$WORK/base" "$WORK/sources.list" </dev/null >"$CACHE/base.log" 2>&1 || {
        tail -30 "$CACHE/base.log" >&2
        die "the base layer failed; the whole log is $CACHE/base.log"
    }
    # Device nodes are made by the container runtime.
    find "$WORK/base/dev" -mindepth 1 -delete
    "$HERE/image.py" layer "$WORK/base" "$CACHE/base.layer.tar"
    echo "$digest" >"$CACHE/base.stamp"
    say "base: $(megabytes "$CACHE/base.layer.tar"), shared by all images but busybox"
}

# Mounts what package scripts expect. Everything below a mount stays out of the layer. $1: root of the tree.
mount_scaffold() {
    local device
    mkdir -p "$CACHE/debs/partial" "$1/var/cache/apt/archives"
    mount --bind "$CACHE/debs" "$1/var/cache/apt/archives"
    mount -t proc proc "$1/proc"
    mount -t tmpfs tmpfs "$1/tmp"
    mount -t tmpfs tmpfs "$1/dev"
    mkdir "$1/dev/shm"
    ln -s /proc/self/fd "$1/dev/fd"
    for device in null zero full random urandom tty; do
        touch "$1/dev/$device"
        mount --bind "/dev/$device" "$1/dev/$device"
    done
}

# Installs a recipe on top of the base and packs what that changed. $1: name, $2: layer to write.
build_layer() {
    local name=$1 recipe=$HERE/recipes/$1 scratch=$WORK/$1
    local root=$scratch/root
    mkdir -p "$scratch/upper" "$scratch/overlay-work" "$root"
    mount -t overlay overlay -o "lowerdir=$WORK/base,upperdir=$scratch/upper,workdir=$scratch/overlay-work" "$root"
    mount_scaffold "$root"
    cp -a "$recipe" "$root/tmp/recipe"
    if [ -s "$recipe/packages" ]; then
        # The machine's apt resolves and downloads, the image's own dpkg unpacks: no network is needed inside the tree.
        # shellcheck disable=SC2046
        APT_CONFIG=$WORK/apt.conf DEBIAN_FRONTEND=noninteractive LC_ALL=C apt-get -y \
            -o Dir="$root" -o Dir::State::status="$root/var/lib/dpkg/status" -o DPkg::Chroot-Directory="$root" \
            install $(entries "$recipe/packages") </dev/null
    fi
    if [ -s "$recipe/unpack" ]; then
        # shellcheck disable=SC2046
        unpack_packages "$root/tmp/unpacked" $(entries "$recipe/unpack")
    fi
    if [ -e "$recipe/setup.sh" ]; then
        env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C HOME=/root \
            chroot "$root" bash -euo pipefail -c 'cd /tmp/recipe && . ./setup.sh' </dev/null
    fi
    # Traces of the build, which would also make every build differ.
    rm -rf "$root"/var/log/*.log "$root"/var/log/apt "$root"/var/cache/debconf/*-old "$root"/var/lib/dpkg/*-old \
        "$root"/var/cache/ldconfig/aux-cache "$root"/etc/machine-id
    umount -R "$root"
    "$HERE/image.py" layer "$scratch/upper" "$2" "$WORK/base"
    rm -rf --one-file-system "$scratch"
}

# ---- images ------------------------------------------------------------------------------------------------------------------

# busybox alone, with a link for each of its commands: an image that loads and starts in no time, for tests and first steps.
build_busybox() {
    local recipe=$HERE/recipes/busybox tree=$WORK/busybox command
    unpack_packages "$WORK/unpacked" busybox-static
    mkdir -p "$tree"/{bin,etc,root,home,tmp,usr/bin,var/www}
    chmod 1777 "$tree/tmp"
    cp "$(find "$WORK/unpacked/busybox-static" -type f -name busybox -perm -111 | head -1)" "$tree/bin/busybox"
    for command in $("$tree/bin/busybox" --list); do
        [ "$command" = busybox ] || ln -s busybox "$tree/bin/$command"
    done
    cp "$recipe"/files/* "$tree/etc/"
    "$HERE/image.py" layer "$tree" "$CACHE/busybox.layer.tar"
    "$HERE/image.py" archive "$OUT/busybox.tar" "$(cat "$recipe/ref")" "$recipe/config.json" "$CACHE/busybox.layer.tar"
}

build_on_base() {
    local name=$1 recipe=$HERE/recipes/$1 log=$CACHE/$1.log failed=0
    prepare_base
    say "$name: installing ..."
    # A shell of its own: in a condition, `set -e` would not stop at the first failing command.
    (set -e; build_layer "$name" "$CACHE/$name.layer.tar") >"$log" 2>&1 &
    wait $! || failed=1
    if [ $failed = 1 ]; then
        tail -30 "$log" >&2
        die "the image $name failed; the whole log is $log"
    fi
    "$HERE/image.py" archive "$OUT/$name.tar" "$(cat "$recipe/ref")" "$recipe/config.json" \
        "$CACHE/base.layer.tar" "$CACHE/$name.layer.tar"
}

build_image() {
    local name=$1 digest
    digest=$(image_digest "$name")
    if is_current "$OUT/$name.tar" "$CACHE/$name.stamp" "$digest"; then
        say "$name: up to date ($(megabytes "$OUT/$name.tar"))"
        return
    fi
    prepare_apt
    if [ "$name" = busybox ]; then build_busybox; else build_on_base "$name"; fi
    echo "$digest" >"$CACHE/$name.stamp"
    say "$name: $OUT/$name.tar ($(megabytes "$OUT/$name.tar")), as $(cat "$HERE/recipes/$name/ref")"
}

# ---- entry -------------------------------------------------------------------------------------------------------------------

images=("$@")
[ ${#images[@]} -gt 0 ] || images=("${ALL_IMAGES[@]}")
for name in "${images[@]}"; do
    [ -e "$HERE/recipes/$name/ref" ] || die "there is no image '$name'; the images are: ${ALL_IMAGES[*]}"
done
[ "$(id -u)" = 0 ] || die "building images needs root (it mounts and changes its root directory); run it as root"
command -v mmdebstrap >/dev/null || die "mmdebstrap is missing; scripts/install.sh installs what is needed"
# Every mount below lives in a mount namespace of this process: nothing is left behind, also when it is killed.
if [ -z "${IMAGES_UNSHARED:-}" ]; then
    IMAGES_UNSHARED=1 exec unshare -m --propagation private "$0" "${images[@]}"
fi
mkdir -p "$OUT" "$CACHE"
exec 9>"$CACHE/lock"
flock -n 9 || { say "waiting for another build ..."; flock 9; }
# Trees are built in memory: fast, gone with the namespace, and an overlay may lie on it where the disk is an overlay itself.
WORK=$CACHE/work
mkdir -p "$WORK"
mount -t tmpfs -o mode=755,size=3g skep-images "$WORK"
for name in "${images[@]}"; do build_image "$name"; done
say "done: $OUT"
