server=/tmp/unpacked/mariadb-server
cp -a "$server"/usr/bin/wsrep_sst_* /usr/bin/
cp -an "$server"/usr/share/mysql/. /usr/share/mysql/
rm -f /usr/bin/innochecksum /usr/bin/mariadb-upgrade /usr/bin/mysql_upgrade /usr/share/mysql/errmsg-utf8.txt
getent group mysql >/dev/null || groupadd -r -g 999 mysql
getent passwd mysql >/dev/null || useradd -r -u 999 -g mysql -d /var/lib/mysql -s /usr/sbin/nologin mysql
install -d -o mysql -g mysql -m 750 /var/lib/mysql
# Only what the entrypoint writes counts, and everything is logged to standard error.
mkdir -p /etc/mysql/conf.d
printf '[client-server]\nsocket=/run/mysqld/mysqld.sock\n!includedir /etc/mysql/conf.d/\n' >/etc/mysql/my.cnf
install -m 755 files/* /usr/local/bin/
