<?php
// Writes wp-config.php to standard output from the environment of the container.

function constant_line($name, $value) {
    return 'define(' . var_export($name, true) . ', ' . var_export($value, true) . ");\n";
}

$password = getenv('WORDPRESS_DB_PASSWORD');

echo "<?php\n";
foreach (['DB_NAME', 'DB_USER', 'DB_PASSWORD', 'DB_HOST'] as $name) {
    echo constant_line($name, getenv("WORDPRESS_$name"));
}
echo constant_line('DB_CHARSET', 'utf8mb4');
echo constant_line('DB_COLLATE', '');

// The replicas behind one address must agree on these, or a login at one is no login at the next. They share the database
// password, so what is not given follows from it.
foreach (['AUTH_KEY', 'SECURE_AUTH_KEY', 'LOGGED_IN_KEY', 'NONCE_KEY', 'AUTH_SALT', 'SECURE_AUTH_SALT', 'LOGGED_IN_SALT', 'NONCE_SALT'] as $name) {
    echo constant_line($name, getenv("WORDPRESS_$name") ?: hash_hmac('sha256', $name, $password));
}

// A demo has no way out to the internet: without these a page would wait for servers that never answer.
foreach (['WP_HTTP_BLOCK_EXTERNAL', 'AUTOMATIC_UPDATER_DISABLED', 'DISABLE_WP_CRON'] as $name) {
    echo constant_line($name, true);
}
echo constant_line('WP_DEBUG', false);
echo '$table_prefix = ' . var_export(getenv('WORDPRESS_TABLE_PREFIX') ?: 'wp_', true) . ";\n";
echo "if (!defined('ABSPATH')) define('ABSPATH', __DIR__ . '/');\n";
echo "require_once ABSPATH . 'wp-settings.php';\n";
