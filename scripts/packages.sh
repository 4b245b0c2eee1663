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
