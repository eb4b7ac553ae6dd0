#!/usr/bin/env bash
# The story on this machine: three nodes, WordPress, a Galera database, found by name.
#
#   scripts/demo.sh SKEP     (make demo builds skep and the images first)
#
# Run again it is quick and changes nothing: what is up stays up.
set -euo pipefail

skep=$(realpath "$1")
cd "$(dirname "$0")/.."
stack=examples/wordpress/docker-stack.yml
state=/var/lib/skep/lab
site=http://localhost:8080/

say() { printf '==> %s\n' "$*"; }
die() { printf 'demo: %s\n' "$*" >&2; exit 1; }

"$skep" check >/dev/null || { "$skep" check; die "this machine lacks something that skep needs"; }
"$skep" lab up --nodes 3

for image in wordpress mariadb client; do
    tar=target/images/$image.tar
    # The stamp tells which tar the nodes have: loading is quick, but a second run needs none.
    stamp=$state/loaded-$image
    now=$(stat -c '%s %Y' "$tar")
    if [ "$(cat "$stamp" 2>/dev/null || true)" != "$now" ]; then
        say "loading the image $image into the nodes"
        "$skep" lab load "$tar"
        printf '%s' "$now" > "$stamp"
    fi
done

export DOCKER_HOST=unix:///run/skep/lab/node-1/docker.sock
# The images are on the nodes, and no registry has their names: the tags are taken as they are.
say "docker stack deploy --compose-file $stack wordpress"
docker stack deploy --resolve-image never --compose-file "$stack" wordpress 2>/dev/null ||
    docker stack deploy --resolve-image never --compose-file "$stack" wordpress

say "waiting for the site"
last=
for _ in $(seq 600); do
    line=$(docker service ls --format '{{.Name}} {{.Replicas}}' | sort | paste -sd, | sed 's/,/, /g')
    code=$(curl --silent --location --max-time 5 --output /dev/null --write-out '%{http_code}' "$site" || true)
    if [ "$line, site $code" != "$last" ]; then
        last="$line, site $code"
        printf '    %s\n' "$last"
    fi
    case $line in *dbcluster\ 1/1*wordpress\ 2/2*) [ "$code" != 200 ] || break ;; esac
    sleep 0.5
done
[ "$code" = 200 ] || die "the site does not answer: docker service ps wordpress_wordpress says why"

printf '\n$ docker node ls\n'; docker node ls
printf '\n$ docker service ls\n'; docker service ls
cat <<END

The site answers on $site and on port 8080 of every node (192.168.100.2, .3, .4).

    export DOCKER_HOST=$DOCKER_HOST
    docker service scale wordpress_dbcluster=3     # three databases meet by multicast
    docker service logs wordpress_wordpress        # the name was looked for, and found
    $skep lab down                                 # everything goes
END
