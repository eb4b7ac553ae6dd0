<?php
// Tries to reach the database and creates WordPress' own in it. Ends with 1 when it is not reached in time.

$interval = 3;
$tries = (int) (getenv('WORDPRESS_DB_TRIES') ?: 10);

// HOST, HOST:PORT or HOST:/path/of/a/socket
[$host, $where] = explode(':', getenv('WORDPRESS_DB_HOST') . ':', 2);
$where = rtrim($where, ':');
$port = is_numeric($where) ? (int) $where : 0;
$socket = $port === 0 && $where !== '' ? $where : null;

mysqli_report(MYSQLI_REPORT_OFF);
$stderr = fopen('php://stderr', 'w');
for ($try = 1; ; $try++) {
    $database = mysqli_init();
    $database->options(MYSQLI_OPT_CONNECT_TIMEOUT, 5);
    if (@$database->real_connect($host, getenv('WORDPRESS_DB_USER'), getenv('WORDPRESS_DB_PASSWORD'), '', $port, $socket)) {
        break;
    }
    fwrite($stderr, "\nMySQL Connection Error: (" . mysqli_connect_errno() . ') ' . mysqli_connect_error() . "\n");
    if ($try >= $tries) {
        exit(1);
    }
    sleep($interval);
}
$name = str_replace('`', '``', getenv('WORDPRESS_DB_NAME'));
if (!$database->query("CREATE DATABASE IF NOT EXISTS `$name`")) {
    fwrite($stderr, "\nMySQL \"CREATE DATABASE\" Error: " . $database->error . "\n");
    exit(1);
}
