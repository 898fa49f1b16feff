#!/usr/bin/env bash
# Builds an image on Debian 12 where there is neither a registry of images nor the right to run a definition's %post in
# Apptainer: as root, with debootstrap, a changed root and Apptainer.
#
#     containers/debian.sh IMAGE.sif                 a small system with Python, a minute
#     containers/debian.sh IMAGE.sif DEFINITION      with that definition's files, %post, %environment and %test on top
#
# The small one is for tests: with `bind_environments`, the environments of envs/ are bound into it. An image that is
# there is left alone. Of your surroundings, what pip and uv are told about packages goes in, and the network.
set -euo pipefail

fail() {
    echo "containers/debian.sh: $*" >&2
    exit 1
}

image=${1:?"usage: containers/debian.sh IMAGE.sif [DEFINITION]"}
definition=${2:-}
if [[ -e $image ]]; then exit; fi
for program in debootstrap apptainer; do
    command -v "$program" >/dev/null || fail "there is no $program on this machine. tests/cluster/apptainer.sh installs both."
done
if [[ $(id -u) != 0 ]]; then fail "debootstrap must run as root."; fi
if [[ -n $definition && ! -e $definition ]]; then fail "there is no definition $definition."; fi

# What stands in a section of the definition, such as %post.
section() { awk -v wanted="%$1" '/^%/ { inside = ($1 == wanted); next } inside' "$definition"; }

# Runs the definition's %post in the new system, in name spaces of its own: what is mounted is gone with it.
run_post() {
    local root=$1 folder folders binds=()
    # Folders of wheels that pip and uv were told of lie outside.
    folders="${UV_FIND_LINKS:-} ${PIP_FIND_LINKS:-}"
    for folder in ${folders//,/ }; do
        if [[ -d $folder ]]; then binds+=("$folder"); fi
    done
    section post >"$root/post"
    unshare --mount --pid --fork bash -euo pipefail -c '
        root=$1
        shift
        mount -t proc proc "$root/proc"
        mount --rbind /dev "$root/dev"
        for path in /etc/resolv.conf /etc/hosts /etc/ssl/certs/ca-certificates.crt; do
            [[ ! -e $path ]] || { touch "$root$path"; mount --bind "$path" "$root$path"; }
        done
        for path; do mkdir -p "$root$path"; mount --bind "$path" "$root$path"; done
        exec env -u PYTHONDONTWRITEBYTECODE HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$root" sh -ex /post
    ' _ "$root" "${binds[@]}"
    rm "$root/post"
    for folder in "${binds[@]}"; do rmdir --parents --ignore-fail-on-non-empty "$root$folder"; done
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# libnuma1 is what vLLM's CPU build links to; openssl, what torch compiles with.
packages=python3,python3-venv,ca-certificates,openssl,libnuma1,procps
mirror=$(sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/debian.sources 2>/dev/null | head -1)
debootstrap --variant=minbase --include="$packages" bookworm "$work/root" ${mirror:+"$mirror"} \
    >"$work/log" || { tail -n 20 "$work/log" >&2; exit 1; }
rm -rf "$work"/root/var/cache/apt/archives/*.deb "$work"/root/var/lib/apt/lists/*

source=$work/root
if [[ -n $definition ]]; then
    # Named from where `apptainer build` would find them: the current folder.
    while read -r from to; do
        if [[ -n $from ]]; then install -D "$from" "$work/root${to:-$from}"; fi
    done < <(section files)
    run_post "$work/root"
    source=$work/definition
    printf 'Bootstrap: localimage\nFrom: %s\n\n%%environment\n%s\n\n%%test\n%s\n' \
        "$work/root" "$(section environment)" "$(section test)" >"$source"
fi
mkdir -p "$(dirname "$image")"
# The definition's %test takes, at this point, the same right as %post; of a finished image, anybody may run it.
apptainer --quiet build --notest "$work/image.sif" "$source"
if [[ -n $definition ]]; then apptainer --quiet test "$work/image.sif" || fail "the image that was built fails its %test: see above."; fi
# Whole or not at all, also where two want it at once.
mv "$work/image.sif" "$image.$$"
chmod a+r "$image.$$"
mv "$image.$$" "$image"
