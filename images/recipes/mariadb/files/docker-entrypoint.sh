#!/bin/bash
# A node of a MariaDB Galera cluster, as one task of a service.
#
#   CLUSTER_NAME           only nodes of the same name join each other (docker_cluster)
#   GALERA_DISCOVERY       multicast (default): nodes find each other by galera-beacon; static: they are in CLUSTER_MEMBERS
#   GALERA_BEACON_ADDR     group of the beacon (239.192.0.11)
#   GALERA_INTERFACE       interface of the cluster's network (eth0)
#   GALERA_NODE_ADDRESS    own address, instead of that interface's
#   DB_SERVICE_NAME        name of the service: while tasks.NAME has other nodes, no second cluster is founded
#   CLUSTER_MEMBERS        a,b,c; empty founds a cluster
#   MYSQL_ROOT_PASSWORD, MYSQL_DATABASE, MYSQL_USER, MYSQL_PASSWORD   made when a cluster is founded; each also as NAME_FILE
set -eo pipefail

case ${1:-} in
mariadbd | mysqld) shift ;;
*) exec "$@" ;;
esac

# A process 1 has no default signal handlers: without these a stop during discovery would last until SIGKILL.
trap 'exit 143' TERM INT
# Commands run in the background, so that the traps above need not wait for them.
run() {
    "$@" &
    wait $!
}

log() { echo "$(date '+%F %T') 0 [Note] [Entrypoint]: $*" >&2; }
fail() {
    echo "$(date '+%F %T') 0 [ERROR] [Entrypoint]: $*" >&2
    exit 1
}

DATA=/var/lib/mysql
CONFIG=/etc/mysql/conf.d/galera.cnf
REDO_LOG_SIZE=${INNODB_LOG_FILE_SIZE:-16M}
CLUSTER_NAME=${CLUSTER_NAME:-docker_cluster}
export CLUSTER_NAME

read_secret_files() {
    local name file
    for name in MYSQL_ROOT_PASSWORD MYSQL_DATABASE MYSQL_USER MYSQL_PASSWORD; do
        file=${name}_FILE
        if [ -n "${!file:-}" ]; then export "$name=$(<"${!file}")"; fi
    done
}

# How much data this disk has: -2 none, -1 some (after a crash), else the last transaction.
data_seqno() {
    if [ -e $DATA/grastate.dat ]; then sed -n 's/^seqno: *//p' $DATA/grastate.dat; else echo -2; fi
}

# Sets ADDRESS and MEMBERS, the latter empty when this node founds the cluster.
find_cluster() {
    local answer
    ADDRESS=${GALERA_NODE_ADDRESS:-}
    if [ -z "$ADDRESS" ]; then
        run galera-beacon address ${GALERA_INTERFACE:+"$GALERA_INTERFACE"} >/run/galera-address ||
            fail "this container has no address on a network to share with the cluster"
        ADDRESS=$(</run/galera-address)
    fi
    case ${GALERA_DISCOVERY:-multicast} in
    multicast)
        log "looking for a cluster $CLUSTER_NAME by multicast from $ADDRESS"
        run galera-beacon discover "$ADDRESS" "$(data_seqno)" >/run/galera-cluster || fail "no cluster"
        read -r answer MEMBERS </run/galera-cluster
        if [ "$answer" = found ]; then
            log "nobody to join: founding the cluster"
            galera-beacon announce "$ADDRESS" founding &
        else
            log "joining ${MEMBERS// /, }"
            galera-beacon announce "$ADDRESS" joining &
        fi
        MEMBERS=${MEMBERS// /,}
        ;;
    static) MEMBERS=${CLUSTER_MEMBERS:-} ;;
    *) fail "GALERA_DISCOVERY is '$GALERA_DISCOVERY': it can be multicast or static" ;;
    esac
}

write_config() {
    cat >$CONFIG <<CONFIG
[mysqld]
user=mysql
datadir=$DATA
socket=/run/mysqld/mysqld.sock
pid-file=/run/mysqld/mysqld.pid
bind-address=0.0.0.0
skip-name-resolve
binlog_format=ROW
default_storage_engine=InnoDB
innodb_autoinc_lock_mode=2
innodb_flush_log_at_trx_commit=2
innodb_buffer_pool_size=${INNODB_BUFFER_POOL_SIZE:-64M}
innodb_log_file_size=$REDO_LOG_SIZE
# A container may neither lock memory nor use io_uring.
innodb_use_native_aio=0
performance_schema=OFF
wsrep_on=ON
wsrep_provider=/usr/lib/galera/libgalera_smm.so
wsrep_cluster_name=$CLUSTER_NAME
wsrep_cluster_address=gcomm://$MEMBERS
wsrep_node_name=$HOSTNAME
wsrep_node_address=$ADDRESS
wsrep_sst_method=rsync
# Listening on the cluster's address alone: on all of them, Galera would take the default route's network for the cluster's.
wsrep_provider_options="gcache.size=${GCACHE_SIZE:-32M};gcache.page_size=32M;gmcast.listen_addr=tcp://$ADDRESS:4567"
CONFIG
}

quoted() { printf "'%s'" "$(printf '%s' "$1" | sed "s/\\\\/\\\\\\\\/g; s/'/''/g")"; }
identifier() { printf '`%s`' "${1//\`/\`\`}"; }

# The accounts of a new cluster. In the container itself root needs no password: the health check relies on that.
initial_statements() {
    local password
    echo "FLUSH PRIVILEGES;"
    if [ -n "${MYSQL_ROOT_PASSWORD:-}" ]; then
        password=$(quoted "$MYSQL_ROOT_PASSWORD")
        echo "ALTER USER root@localhost IDENTIFIED VIA unix_socket OR mysql_native_password USING PASSWORD($password);"
        echo "CREATE USER root@'%' IDENTIFIED BY $password;"
        echo "GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION;"
    fi
    if [ -n "${MYSQL_DATABASE:-}" ]; then
        echo "CREATE DATABASE $(identifier "$MYSQL_DATABASE");"
    fi
    if [ -n "${MYSQL_USER:-}" ]; then
        echo "CREATE USER $(quoted "$MYSQL_USER")@'%' IDENTIFIED BY $(quoted "${MYSQL_PASSWORD:-}");"
        if [ -n "${MYSQL_DATABASE:-}" ]; then
            echo "GRANT ALL ON $(identifier "$MYSQL_DATABASE").* TO $(quoted "$MYSQL_USER")@'%';"
        fi
    fi
    echo "DROP USER IF EXISTS ''@localhost;"
    echo "DROP USER IF EXISTS ''@$(quoted "$HOSTNAME");"
}

initialise_data() {
    log "initialising $DATA"
    # --force: it need not be able to look up the container's own name.
    run mariadb-install-db --force --user=mysql --datadir=$DATA --skip-test-db --auth-root-authentication-method=socket \
        --wsrep-on=OFF --innodb-log-file-size="$REDO_LOG_SIZE" >/run/install-db.log 2>&1 || {
        cat /run/install-db.log >&2
        fail "$DATA could not be initialised"
    }
    initial_statements >/run/initial.sql
    # Not by `run`: a command in the background has no standard input.
    mariadbd --user=mysql --datadir=$DATA --bootstrap --wsrep-on=OFF --silent-startup </run/initial.sql >/run/bootstrap.log 2>&1 || {
        cat /run/bootstrap.log >&2
        fail "the accounts of the cluster could not be made"
    }
    # It has the passwords.
    rm /run/initial.sql
}

read_secret_files
find_cluster
write_config
# Some runtimes put an empty /run into a container.
install -d -o mysql -g mysql /run/mysqld
chown mysql: $DATA
if [ -z "$MEMBERS" ]; then
    # A joining node gets its data from the cluster, so it needs none of its own.
    if [ ! -d $DATA/mysql ]; then initialise_data; fi
    # Galera refuses to found a cluster on data of a former one unless told that it is the latest; the beacon has chosen it for that.
    if [ -e $DATA/grastate.dat ]; then sed -i 's/^safe_to_bootstrap: 0/safe_to_bootstrap: 1/' $DATA/grastate.dat; fi
fi
log "wsrep_cluster_address=gcomm://$MEMBERS"
exec mariadbd "$@"
