# Read by up.sh and down.sh: which cluster, and the names that it has on this machine, where another one may run beside it.
# Its hosts call themselves login, gpu01, gpu02 and cpu01; the machine knows them by these words with $tag before them.
# shellcheck shell=bash disable=SC2034
cluster=${CLUSTER_DIR:-/tmp/milepost-cluster}
tag=$(printf '%05x' $(($(printf %s "$cluster" | cksum | cut -d' ' -f1) % 1048576)))
bridge=milepost-$tag
hosts=(login:10.77.0.1 gpu01:10.77.0.11 gpu02:10.77.0.12 cpu01:10.77.0.21)

namespace_of() { echo "$tag-$1"; }
link_of() { echo "v$tag-$1"; }
