# shellcheck shell=bash
# Functions that install what a fresh Debian or Ubuntu machine lacks. To be sourced. They touch nothing that is there already.

die() {
    echo "$(basename "$0"): $*" >&2
    exit 1
}

as_root() {
    if [[ $(id -u) == 0 ]]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "needs root (and there is no sudo) for: $*"
    fi
}

# install_packages NAME…
install_packages() {
    command -v apt-get >/dev/null || die "this machine has no apt-get; please install what corresponds to: $*"
    echo "== installing $*"
    # A freshly booted machine may be updating itself: wait for it.
    as_root apt-get -o DPkg::Lock::Timeout=600 -qq update
    as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l \
        apt-get -o DPkg::Lock::Timeout=600 -qq install --yes --no-install-recommends "$@" >/dev/null
}

# need COMMAND PACKAGE…: installs the packages if there is no such command.
need() {
    local command=$1
    shift
    command -v "$command" >/dev/null || install_packages "$@"
}

# node_works: the programs of tests/clients need Node 20.
node_works() {
    command -v node >/dev/null && node -e 'process.exit(process.versions.node.split(".")[0] >= 20 ? 0 : 1)'
}

# What tests/clients needs: Node with npm, Python with venv, and the packages that its lock files name.
need_clients() {
    command -v npm >/dev/null || install_packages nodejs npm
    if ! node_works; then
        # An older distribution's: a newer one comes as a package too, beside it.
        npm install --silent --no-audit --no-fund --prefix .node "node-linux-$(node -p process.arch)@22"
        PATH=$PWD/.node/node_modules/node-linux-$(node -p process.arch)/bin:$PATH
        node_works || die "Node 20 or later is needed"
    fi
    python3 -c 'import ensurepip, venv' 2>/dev/null || install_packages python3 python3-venv
    npm ci --silent --ignore-scripts --no-audit --no-fund --prefix tests/clients
    python3 -m venv tests/clients/.venv
    tests/clients/.venv/bin/pip install --quiet --disable-pip-version-check -r tests/clients/requirements.txt
}

# The test servers need PostgreSQL's programs, not Debian's service: installing must not start a server on port 5432.
need_postgres() {
    local programs
    for programs in ${PATH//:/ } /usr/lib/postgresql/*/bin; do
        [[ -x $programs/initdb && -x $programs/postgres ]] && return
    done
    local no_cluster=/etc/postgresql-common/createcluster.d/windfall-no-main-cluster.conf failed=
    as_root mkdir -p "$(dirname $no_cluster)"
    echo 'create_main_cluster = false' | as_root tee $no_cluster >/dev/null
    install_packages postgresql || failed=yes
    # Only this installation: whoever installs another version later wants its server.
    as_root rm -f $no_cluster
    [[ -z $failed ]] || die "PostgreSQL could not be installed"
}

# The test servers need Redis's program, not Debian's service: installing must not start a server on port 6379, nor must the next boot.
need_redis() {
    ! command -v redis-server >/dev/null || return 0
    # In a subshell, so that the policy goes with it, however the installation ends.
    (
        # What Debian asks before it starts a service. A machine that has its own answer keeps it.
        policy=/usr/sbin/policy-rc.d
        if [[ ! -e $policy && ! -L $policy ]]; then
            trap 'as_root rm -f $policy' EXIT
            printf '#!/bin/sh\nexit 101\n' | as_root install -m 755 /dev/stdin $policy || exit
        fi
        install_packages redis-server
    ) || die "Redis could not be installed"
    as_root update-rc.d redis-server disable >/dev/null || echo "redis-server may start at the next boot" >&2
}
