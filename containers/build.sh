#!/usr/bin/env bash
# Builds one of these definitions where there is no registry of images: containers/build.sh DEFINITION IMAGE.sif
#
# It goes on top of the small Debian of small.sh, which is made first, in .images. Anybody may build on that one, so root
# does it as `nobody`: root of a container often lacks rights that Apptainer asks for. What you tell pip or uv about
# wheels goes in (UV_FIND_LINKS, PIP_FIND_LINKS), and the certificates that this host trusts. Takes minutes; an image that
# is there is left alone.
set -euo pipefail

definition=${1:?"usage: containers/build.sh DEFINITION IMAGE.sif"}
image=$(realpath -m "${2:?"usage: containers/build.sh DEFINITION IMAGE.sif"}")
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [[ -e $image ]]; then exit; fi
if [[ ! -e $definition ]]; then echo "containers/build.sh: there is no definition $definition." >&2; exit 1; fi
small=$root/.images/small.sif
"$root/containers/small.sh" "$small"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# All that the definitions name, where nobody else's rights matter.
mkdir "$work/wheels"
find_links="${UV_FIND_LINKS:-} ${PIP_FIND_LINKS:-}"
for folder in ${find_links//,/ }; do
    if compgen -G "$folder/*.whl" >/dev/null; then cp -t "$work/wheels" "$folder"/*.whl; fi
done
tar -C "$root" --exclude='.venv*' --exclude=.lock --exclude=.python -c envs | tar -C "$work" -x
cp "$definition" "$work/definition"
chmod -R go=rX "$work"

as=() trusted=/etc/ssl/certs/ca-certificates.crt options=(--bind "$work/wheels:/mnt")
if [[ $(id -u) == 0 ]]; then
    chown -R nobody "$work"
    as=(setpriv --reuid nobody --regid nogroup --clear-groups)
fi
export APPTAINERENV_UV_FIND_LINKS=/mnt
if [[ -e $trusted ]]; then
    options+=(--bind "$trusted")
    export APPTAINERENV_SSL_CERT_FILE=$trusted
fi
# From where a definition names its files.
cd "$work"
HOME=$work APPTAINER_TMPDIR=$work APPTAINER_CACHEDIR=$work/cache "${as[@]}" apptainer build "${options[@]}" \
    --build-arg bootstrap=localimage --build-arg from="$small" image.sif definition
# Whole or not at all, also where two want it at once.
mkdir -p "$(dirname "$image")"
install -m 755 "$work/image.sif" "$image.$$"
mv "$image.$$" "$image"
