#!/usr/bin/env bash
# Brings up a real SLURM cluster on one Debian 12 machine, as root: about 25 s from nothing, 5 s once it is installed.
#
# Its four hosts are network namespaces on one bridge, each with an sshd of its own:
#   login  10.77.0.1    slurmctld, and slurmdbd with MariaDB behind it
#   gpu01  10.77.0.11   and gpu02 10.77.0.12, each with a stand-in A40, which SLURM counts and no program can use
#   cpu01  10.77.0.21   with the feature NOGPU
# The ordinary users alice and bob have the accounts proj1 and proj2, and the group class. Everything lies in $CLUSTER_DIR;
# /etc is not touched, because every host sees files of its own there. An up.sh that finds a cluster running leaves it
# alone; one with another $CLUSTER_DIR brings up a second one beside it. Then:
#   $CLUSTER_DIR/bin/on HOST COMMAND...   runs a command on a host as root
#   $CLUSTER_DIR/bin/as HOST COMMAND...   runs it as alice, or as $CLUSTER_USER, with $USER_PATH as PATH
#
# Where it differs from a site: hosts share /tmp, all files and one process-id space (`ip netns pids HOST` lists the
# processes of one), and there are no cgroups, so SLURM's own clean-up is weaker: a leak that shows here is a real one.
set -euo pipefail

# shellcheck source=tests/cluster/names.sh
. "$(dirname "${BASH_SOURCE[0]}")/names.sh"
users=(alice:5001 bob:5003)
# Every daemon carries it, so that no process is taken for one that merely has its old number.
export MILEPOST_CLUSTER=$cluster

say() { printf '[%4d s] %s\n' "$SECONDS" "$*"; }

fail() {
    echo "tests/cluster/up.sh: $*" >&2
    exit 1
}

check_machine() {
    local id="" VERSION_ID="" ID=""
    # shellcheck disable=SC1091
    . /etc/os-release
    id="$ID $VERSION_ID"
    if [[ $id != "debian 12" ]]; then
        fail "the test cluster is made of Debian 12's packages, and this is ${id:-an unknown system}. Run it in a virtual" \
            "machine, or a privileged container, with Debian 12."
    fi
    if ((EUID != 0)); then
        fail "the test cluster needs root, for its network namespaces, its packages and a second user. Run it as root on" \
            "a machine that is yours to break."
    fi
    unshare --net --mount true 2>/dev/null \
        || fail "root may not make namespaces here. In a container, it has to be a privileged one."
}

install_packages() {
    local command missing=0
    for command in slurmctld slurmdbd mariadbd munged sshd ip; do
        command -v "$command" >/dev/null || missing=1
    done
    if ((missing)); then
        apt-get update -qq >"$cluster/log/apt.log" 2>&1 || fail "apt-get update failed: see $cluster/log/apt.log"
        # With a run level of 1, no daemon is started by its package.
        RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
            slurm-wlm slurmdbd mariadb-server munge openssh-server openssh-client iproute2 >>"$cluster/log/apt.log" 2>&1 \
            || fail "apt-get install failed: see $cluster/log/apt.log"
    fi
}

# What the hosts see in place of the machine's own files in /etc.
write_accounts() {
    local host one user id
    cp /etc/passwd /etc/group "$cluster/etc/"
    cp -p /etc/shadow "$cluster/etc/shadow"
    for one in "${users[@]}"; do
        user=${one%:*} id=${one#*:}
        mkdir -p "$cluster/home/$user"
        echo "$user:x:$id:$id::$cluster/home/$user:/bin/bash" >>"$cluster/etc/passwd"
        echo "$user:x:$id:" >>"$cluster/etc/group"
        echo "$user:*:19000:0:99999:7:::" >>"$cluster/etc/shadow"
        chown "$id:$id" "$cluster/home/$user"
    done
    echo "class:x:5100:alice,bob" >>"$cluster/etc/group"
    echo "127.0.0.1 localhost" >"$cluster/etc/hosts"
    for host in "${hosts[@]}"; do echo "${host#*:} ${host%:*}" >>"$cluster/etc/hosts"; done
}

join_hosts() {
    local host name link
    echo "$tag" >"$cluster/tag"
    ip link show "$bridge" >/dev/null 2>&1 || ip link add "$bridge" type bridge
    ip link set "$bridge" up
    for host in "${hosts[@]}"; do
        name=$(namespace_of "${host%:*}") link=$(link_of "${host%:*}")
        if ip netns list | grep -qw -- "$name"; then continue; fi
        ip netns add "$name"
        ip link add "$link" type veth peer name eth0 netns "$name"
        ip link set "$link" master "$bridge" up
        ip -n "$name" link set lo up
        ip -n "$name" addr add "${host#*:}/24" dev eth0
        ip -n "$name" link set eth0 up
    done
}

write_commands() {
    cat >"$cluster/bin/on" <<END
#!/usr/bin/env bash
# Each call has a mount and a host name space of its own, with the cluster's files over those of /etc.
host=\$1
shift
exec nsenter --net=/run/netns/$tag-\$host unshare --mount --uts --propagation private bash -ec '
    hostname "\$1"
    shift
    for file in passwd group shadow hosts; do mount --bind $cluster/etc/\$file /etc/\$file; done
    mount --bind $cluster/slurm /etc/slurm
    mkdir -p /run/munge
    mount --bind $cluster/run/munge /run/munge
    [[ ! -e /dev/fuse ]] || mount --bind $cluster/dev/fuse /dev/fuse
    unset SLURM_CONF
    exec "\$@"' _ "\$host" "\$@"
END
    cat >"$cluster/bin/as" <<END
#!/usr/bin/env bash
host=\$1 user=\${CLUSTER_USER:-alice}
shift
exec $cluster/bin/on \$host setpriv --reuid \$user --regid \$user --init-groups env -i HOME=$cluster/home/\$user \\
    USER=\$user LOGNAME=\$user SHELL=/bin/bash TERM=\${TERM:-dumb} LANG=C.UTF-8 PATH=\${USER_PATH:-/usr/local/bin:/usr/bin:/bin} "\$@"
END
    chmod +x "$cluster/bin/on" "$cluster/bin/as"
}

write_devices() {
    [[ -e $cluster/dev/nvidia0 ]] || mknod -m 666 "$cluster/dev/nvidia0" c 1 3
    # Ordinary users mount Apptainer's images through it; on some machines it is root's alone.
    [[ -e $cluster/dev/fuse ]] || mknod -m 666 "$cluster/dev/fuse" c 10 229
}

write_slurm_configuration() {
    cat >"$cluster/slurm/slurm.conf" <<END
ClusterName=test
SlurmctldHost=login(10.77.0.1)
SlurmUser=slurm
AuthType=auth/munge
StateSaveLocation=$cluster/state
SlurmdSpoolDir=$cluster/spool/%n
SlurmctldPidFile=$cluster/run/slurmctld.own.pid
SlurmdPidFile=$cluster/run/slurmd.own.%n.pid
SlurmctldLogFile=$cluster/log/slurmctld.log
SlurmdLogFile=$cluster/log/slurmd.%n.log
SlurmctldDebug=info
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=1
SlurmctldTimeout=30
SlurmdTimeout=60
KillWait=10
MinJobAge=300
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=5,sched_min_interval=500000
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=1000
GresTypes=gpu
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=10.77.0.1
AccountingStorageEnforce=associations,limits
AccountingStorageTRES=gres/gpu
AccountingStoreFlags=job_comment
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=5
SlurmdParameters=config_overrides
NodeName=gpu01 NodeAddr=10.77.0.11 CPUs=16 RealMemory=128000 Gres=gpu:A40:1 Feature=A40,GPU State=UNKNOWN
NodeName=gpu02 NodeAddr=10.77.0.12 CPUs=16 RealMemory=128000 Gres=gpu:A40:1 Feature=A40,GPU State=UNKNOWN
NodeName=cpu01 NodeAddr=10.77.0.21 CPUs=16 RealMemory=128000 Feature=NOGPU State=UNKNOWN
PartitionName=main Nodes=gpu01,gpu02,cpu01 Default=YES MaxTime=1-0 DefaultTime=30 State=UP
END
    echo "CgroupPlugin=cgroup/v1" >"$cluster/slurm/cgroup.conf"
    echo "NodeName=gpu0[1-2] Name=gpu Type=A40 File=$cluster/dev/nvidia0" >"$cluster/slurm/gres.conf"
    cat >"$cluster/slurm/slurmdbd.conf" <<END
AuthType=auth/munge
DbdHost=login
DbdAddr=10.77.0.1
SlurmUser=slurm
LogFile=$cluster/log/slurmdbd.log
PidFile=$cluster/run/slurmdbd.own.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=slurm
StorageLoc=slurm_acct_db
END
    chown slurm "$cluster/slurm/slurmdbd.conf"
    chmod 600 "$cluster/slurm/slurmdbd.conf"
}

# Starts a daemon on a host, unless it runs: start NAME HOST COMMAND...
start() {
    local name=$1 host=$2 pid
    shift 2
    pid=$(cat "$cluster/run/$name.pid" 2>/dev/null) || true
    if [[ -n $pid ]] && grep -qz "^MILEPOST_CLUSTER=$cluster\$" "/proc/$pid/environ" 2>/dev/null; then return; fi
    setsid "$cluster/bin/on" "$host" "$@" </dev/null >>"$cluster/log/$name.out" 2>&1 &
    echo $! >"$cluster/run/$name.pid"
}

# Waits at most so many seconds for a command to succeed.
wait_for() {
    local tries=$(($1 * 10))
    shift
    while ! "$@" >/dev/null 2>&1; do
        ((tries-- > 0)) || fail "timed out waiting for: $*. The daemons' logs are in $cluster/log."
        sleep 0.1
    done
}

start_munge() {
    [[ -s $cluster/munge/key ]] || dd if=/dev/urandom of="$cluster/munge/key" bs=1024 count=1 status=none
    chown -R munge: "$cluster/munge" "$cluster/run/munge"
    chmod 700 "$cluster/munge"
    chmod 400 "$cluster/munge/key"
    start munged login setpriv --reuid munge --regid munge --clear-groups munged --foreground --force \
        --key-file="$cluster/munge/key" --socket=/run/munge/munge.socket.2 --pid-file="$cluster/munge/munged.pid" \
        --log-file="$cluster/munge/munged.log" --seed-file="$cluster/munge/seed"
    wait_for 10 test -S "$cluster/run/munge/munge.socket.2"
}

sql() { mariadb --no-defaults --socket="$cluster/mysql/socket" --user=root --execute="$1"; }

start_accounting() {
    local account one
    chown -R mysql: "$cluster/mysql"
    [[ -d $cluster/mysql/mysql ]] || mariadb-install-db --no-defaults --user=mysql --datadir="$cluster/mysql" \
        --skip-test-db >"$cluster/log/mariadb-install.log" 2>&1
    start mariadbd login mariadbd --no-defaults --user=mysql --datadir="$cluster/mysql" \
        --socket="$cluster/mysql/socket" --pid-file="$cluster/mysql/pid" --skip-networking \
        --innodb-buffer-pool-size=128M --innodb-lock-wait-timeout=900
    wait_for 30 sql 'select 1'
    sql "create database if not exists slurm_acct_db; create user if not exists slurm@localhost;
        grant all on slurm_acct_db.* to slurm@localhost"
    # slurmdbd looks for the database's socket in one place only.
    cat >"$cluster/bin/slurmdbd" <<END
#!/usr/bin/env bash
set -e
mkdir -p /run/mysqld
mount -t tmpfs tmpfs /run/mysqld
ln -s $cluster/mysql/socket /run/mysqld/mysqld.sock
exec setpriv --reuid slurm --regid slurm --clear-groups slurmdbd -D
END
    chmod +x "$cluster/bin/slurmdbd"
    chmod 755 "$cluster/mysql"
    start slurmdbd login "$cluster/bin/slurmdbd"
    wait_for 30 "$cluster/bin/on" login sacctmgr --noheader show cluster
    # All of it may be there already, which sacctmgr takes for a failure.
    manage add cluster test
    for account in proj1 proj2; do
        manage add account "$account" Description="$account" Organization=tests
        for one in "${users[@]%:*}"; do manage add user "$one" Account="$account"; done
    done
}

manage() { "$cluster/bin/on" login sacctmgr --immediate --quiet "$@" >/dev/null 2>&1 || true; }

start_slurm() {
    local host
    start slurmctld login setpriv --reuid slurm --regid slurm --clear-groups slurmctld -D
    for host in gpu01 gpu02 cpu01; do
        mkdir -p "$cluster/spool/$host"
        start "slurmd-$host" "$host" slurmd -D -N "$host"
    done
}

start_ssh() {
    local host one own
    [[ -s $cluster/ssh/hostkey ]] || ssh-keygen -q -t ed25519 -N '' -f "$cluster/ssh/hostkey"
    mkdir -p /run/sshd
    for one in "${users[@]}"; do
        own=$cluster/home/${one%:*}/.ssh
        mkdir -p "$own"
        if [[ ! -s $own/id_ed25519 ]]; then
            ssh-keygen -q -t ed25519 -N '' -f "$own/id_ed25519"
            cp "$own/id_ed25519.pub" "$own/authorized_keys"
        fi
        for host in "${hosts[@]}"; do
            echo "${host%:*},${host#*:} $(<"$cluster/ssh/hostkey.pub")"
        done >"$own/known_hosts"
        chown -R "${one#*:}:${one#*:}" "$own"
        chmod 700 "$own"
        chmod 600 "$own/authorized_keys" "$own/id_ed25519"
    done
    cat >"$cluster/ssh/sshd_config" <<END
Port 22
HostKey $cluster/ssh/hostkey
PidFile none
UsePAM no
PasswordAuthentication no
StrictModes no
Subsystem sftp internal-sftp
END
    for host in "${hosts[@]}"; do
        start "sshd-${host%:*}" "${host%:*}" /usr/sbin/sshd -D -e -f "$cluster/ssh/sshd_config"
    done
}

nodes_are_up() { [[ $("$cluster/bin/on" login sinfo --noheader --Node --format=%T | grep -cE 'idle|mixed|allocated') == 3 ]]; }

main() {
    check_machine
    mkdir -p "$cluster"/{etc,run/munge,log,spool,state,mysql,munge,ssh,slurm,dev,bin,home}
    chmod 755 "$cluster" "$cluster"/* "$cluster/run/munge"
    install_packages
    say "packages are installed"
    write_accounts
    join_hosts
    write_commands
    write_devices
    write_slurm_configuration
    chown slurm "$cluster"/{state,run,log}
    start_munge
    start_accounting
    say "accounting answers"
    start_slurm
    start_ssh
    wait_for 60 nodes_are_up
    say "the cluster is up, in $cluster"
    "$cluster/bin/on" login sinfo --Node --format='%N %T %c %m %G %f'
}

main "$@"
