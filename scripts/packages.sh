# shellcheck shell=bash
# Functions that install what a fresh Debian or Ubuntu machine lacks. To be sourced. They do not change what is already installed.

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
        die "root or sudo is needed to run: $*"
    fi
}

# install_packages NAME…
install_packages() {
    command -v apt-get >/dev/null || die "this machine has no apt-get: install what corresponds to these packages: $*"
    echo "== installing $*"
    # A freshly booted machine may be updating itself, so wait for its lock.
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

# node_works: succeeds if Node is at least version 20, which the programs of tests/clients need.
node_works() {
    command -v node >/dev/null && node -e 'process.exit(process.versions.node.split(".")[0] >= 20 ? 0 : 1)'
}

# need_clients: installs what tests/clients needs: Node with npm, Python with venv, and the packages that its lock files name.
need_clients() {
    command -v npm >/dev/null || install_packages nodejs npm
    if ! node_works; then
        # The distribution's Node is too old. A newer one is available as an npm package, which is installed beside it.
        npm install --silent --no-audit --no-fund --prefix .node "node-linux-$(node -p process.arch)@22"
        PATH=$PWD/.node/node_modules/node-linux-$(node -p process.arch)/bin:$PATH
        node_works || die "Node 20 or later is needed"
    fi
    python3 -c 'import ensurepip, venv' 2>/dev/null || install_packages python3 python3-venv
    npm ci --silent --ignore-scripts --no-audit --no-fund --prefix tests/clients
    python3 -m venv tests/clients/.venv
    tests/clients/.venv/bin/pip install --quiet --disable-pip-version-check -r tests/clients/requirements.txt
}

# need_postgres: installs PostgreSQL's programs for the test servers. Debian's own service is not needed: the installation must
# not start a server on port 5432.
need_postgres() {
    local programs
    for programs in ${PATH//:/ } /usr/lib/postgresql/*/bin; do
        [[ -x $programs/initdb && -x $programs/postgres ]] && return
    done
    local no_cluster=/etc/postgresql-common/createcluster.d/windfall-no-main-cluster.conf failed=
    as_root mkdir -p "$(dirname $no_cluster)"
    echo 'create_main_cluster = false' | as_root tee $no_cluster >/dev/null
    install_packages postgresql || failed=yes
    # This applies to this installation only: whoever installs another version later wants its server.
    as_root rm -f $no_cluster
    [[ -z $failed ]] || die "PostgreSQL could not be installed"
}

# need_without_service COMMAND SERVICE PACKAGE…: as `need`, for a server of which the tests need only the program. The
# installation must not start Debian's service on its usual port, neither now nor when the machine boots.
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
    # This applies to this installation only: whoever installs a server later wants it to run.
    [[ -z $made ]] || as_root rm -f $policy
    [[ -z $failed ]] || die "$* could not be installed"
    [[ ! -d /run/systemd/system ]] || as_root systemctl disable --quiet "$service"
}

# need_kafka: installs Java, and fetches the jars of Kafka for the test brokers into a folder that the tests read. The folder
# appears only when it is whole.
need_kafka() {
    local version folder part
    need java default-jre-headless
    version=$(sed -n 's:.*<kafka\.version>\(.*\)</kafka\.version>.*:\1:p' tests/kafka/pom.xml)
    folder=${WINDFALL_TEST_KAFKA:-$HOME/.cache/windfall-kafka/$version}
    [[ ! -d $folder ]] || return 0
    need mvn maven
    mkdir -p "$(dirname "$folder")"
    part=$(mktemp -d "$(realpath "$folder").XXXXXX")
    if ! mvn -B -q -C -f tests/kafka/pom.xml org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$part"; then
        rm -rf "$part"
        die "Kafka could not be fetched"
    fi
    chmod 755 "$part"
    # Another run may have been faster.
    mv -T "$part" "$folder" 2>/dev/null || rm -rf "$part"
}
