#!/usr/bin/env bash
# Builds a small image of Debian 12 with Python, for tests: containers/small.sh IMAGE.sif
#
# vLLM and NeMo Evaluator are not in it: with `bind_environments`, those of envs/ are bound into it, and build.sh puts them
# on top of it. Takes a minute, as root on Debian, with debootstrap and Apptainer; an image that is there is left alone.
set -euo pipefail

image=${1:?"usage: containers/small.sh IMAGE.sif"}
if [[ -e $image ]]; then exit; fi
for program in debootstrap apptainer; do
    command -v "$program" >/dev/null || { echo "containers/small.sh: there is no $program on this machine." >&2; exit 1; }
done
if [[ $(id -u) != 0 ]]; then echo "containers/small.sh: debootstrap must run as root." >&2; exit 1; fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# libnuma1 is what vLLM's CPU build links to; openssl, what torch compiles with.
packages=python3,python3-venv,ca-certificates,openssl,libnuma1,procps
mirror=$(sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/debian.sources 2>/dev/null | head -1)
debootstrap --variant=minbase --include="$packages" bookworm "$work/root" ${mirror:+"$mirror"} \
    >"$work/log" || { tail -n 20 "$work/log" >&2; exit 1; }
rm -rf "$work"/root/var/cache/apt/archives/*.deb "$work"/root/var/lib/apt/lists/*
# What Apptainer mounts over, and no owner but root: whoever may use it may then build on it, too.
touch "$work"/root/etc/{hosts,resolv.conf,localtime}
chown -hR 0:0 "$work/root"
mkdir -p "$(dirname "$image")"
apptainer --quiet build "$work/image.sif" "$work/root"
# Whole or not at all, also where two tests want it at once.
mv "$work/image.sif" "$image.$$"
chmod a+r "$image.$$"
mv "$image.$$" "$image"
