#!/bin/bash
# Prepares WordPress, waits for its database and becomes the server. The contract is the official image's:
#   WORDPRESS_DB_HOST (mysql), WORDPRESS_DB_USER (root), WORDPRESS_DB_PASSWORD, WORDPRESS_DB_NAME (wordpress), WORDPRESS_TABLE_PREFIX (wp_),
#   WORDPRESS_AUTH_KEY and the other keys and salts; each also as NAME_FILE.
# Ten tries at the database, three seconds apart, then exit 1: to try again is the orchestrator's restart policy.
set -eu

# A process 1 has no default signal handlers: without these a stop during the wait would last until SIGKILL.
trap 'exit 143' TERM WINCH INT

# Commands run in the background, so that the traps above need not wait for them.
run() {
    "$@" &
    wait $!
}

read_secret_files() {
    local name file
    for name in DB_HOST DB_USER DB_PASSWORD DB_NAME TABLE_PREFIX {AUTH,SECURE_AUTH,LOGGED_IN,NONCE}_{KEY,SALT}; do
        file=WORDPRESS_${name}_FILE
        if [ -n "${!file:-}" ]; then export "WORDPRESS_$name=$(<"${!file}")"; fi
    done
}

copy_wordpress() {
    if [ -e index.php ] && [ -e wp-includes/version.php ]; then return; fi
    echo >&2 "WordPress not found in $PWD - copying now..."
    if [ -n "$(ls -A)" ]; then
        echo >&2 "WARNING: $PWD is not empty - press Ctrl+C now if this is an error!"
        ls -A >&2
    fi
    run cp -a /usr/src/wordpress/. .
    echo >&2 "Complete! WordPress has been successfully copied to $PWD"
    if [ ! -e .htaccess ]; then
        cat >.htaccess <<'HTACCESS'
# BEGIN WordPress
<IfModule mod_rewrite.c>
RewriteEngine On
RewriteBase /
RewriteRule ^index\.php$ - [L]
RewriteCond %{REQUEST_FILENAME} !-f
RewriteCond %{REQUEST_FILENAME} !-d
RewriteRule . /index.php [L]
</IfModule>
# END WordPress
HTACCESS
        chown www-data:www-data .htaccess
    fi
}

if [[ "$1" == apache2* ]]; then
    read_secret_files
    export WORDPRESS_DB_HOST=${WORDPRESS_DB_HOST:-mysql}
    export WORDPRESS_DB_USER=${WORDPRESS_DB_USER:-root}
    export WORDPRESS_DB_NAME=${WORDPRESS_DB_NAME:-wordpress}
    if [ -z "${WORDPRESS_DB_PASSWORD:-}" ]; then
        echo >&2 'error: missing required WORDPRESS_DB_PASSWORD environment variable'
        echo >&2 '  Did you forget to -e WORDPRESS_DB_PASSWORD=... ?'
        exit 1
    fi
    copy_wordpress
    if [ ! -e wp-config.php ]; then
        php /usr/local/share/wordpress/configure.php >wp-config.php
        chown www-data:www-data wp-config.php
    fi
    # Errors appear on standard error alone and without markup, as lines of the log.
    run php -d display_errors=stderr -d html_errors=0 -d log_errors=0 /usr/local/share/wordpress/wait-for-database.php
fi
# Not inherited as "ignored" or "caught": exec resets what a trap has set.
exec "$@"
