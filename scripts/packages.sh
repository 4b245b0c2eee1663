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

# need_without_service COMMAND SERVICE PACKAGE…: as `need`, for a server of which the tests need the program alone: installing it must not
# start Debian's service on its usual port, now or when the machine starts again.
need_without_service() {
    local command=$1 service=$2 policy=/usr/sbin/policy-rc.d made='' failed=''
    shift 2
    if (PATH=$PATH:/usr/sbin && command -v "$command" >/dev/null); then
        return
    fi
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
        as_root chmod +x $policy
        made=yes
    fi
    install_packages "$@" || failed=yes
    # Only this installation: whoever installs a server later wants it to run.
    [[ -z $made ]] || as_root rm -f $policy
    [[ -z $failed ]] || die "$* could not be installed"
    [[ ! -d /run/systemd/system ]] || as_root systemctl disable --quiet "$service"
}
