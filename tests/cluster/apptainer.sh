#!/usr/bin/env bash
# Installs Apptainer on Debian 12, as root, in about 30 s. For test machines: Debian has it in sid only, built against a
# newer C library, of which it uses two functions. apptainer_glibc.py points those at their older names.
set -euo pipefail
# As udev has it on Debian: without it, ordinary users mount no image.
if [[ -c /dev/fuse && $EUID == 0 ]]; then chmod 666 /dev/fuse; fi

if command -v apptainer >/dev/null; then exit; fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
# apt fetches as a user of its own, who must get in here.
chmod 755 .
mkdir -p state/lists/partial cache/archives/partial

mirror=$(sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/debian.sources | head -n 1)
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror sid main" >sid.list
sid=(-o "Dir::Etc::sourcelist=$work/sid.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$work/state/lists"
    -o "Dir::Cache=$work/cache" -qq)
apt-get "${sid[@]}" update
apt-get "${sid[@]}" download apptainer >/dev/null
dpkg-deb -R apptainer_*.deb package
python3 "$here/apptainer_glibc.py" package/usr/bin/apptainer package/usr/lib/x86_64-linux-gnu/apptainer/bin/starter
sed -i 's/libc6 (>= 2\.[0-9]*)/libc6 (>= 2.36)/; s/^\(Version: .*\)$/\1~bookworm1/' package/DEBIAN/control
dpkg-deb -b package apptainer.deb >/dev/null
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    ./apptainer.deb debootstrap squashfuse fuse-overlayfs >/dev/null
apptainer --version
