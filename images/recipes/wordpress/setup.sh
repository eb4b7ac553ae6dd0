# WordPress itself, under /usr/src as in the official image: the entrypoint copies it into an empty document root.
mkdir -p /etc/wordpress /usr/src
for package in /tmp/unpacked/*; do
    cp -a "$package/usr/share/wordpress" /usr/share/
    if [ -d "$package/etc/wordpress" ]; then cp -a "$package/etc/wordpress/." /etc/wordpress/; fi
done
cp -rL /usr/share/wordpress /usr/src/wordpress
for package in /tmp/unpacked/*; do
    if [ -d "$package/var/lib/wordpress/wp-content" ]; then
        cp -rL "$package/var/lib/wordpress/wp-content/." /usr/src/wordpress/wp-content/
    fi
done
rm -rf /usr/share/wordpress /etc/wordpress /usr/src/wordpress/.htaccess /usr/src/wordpress/wp-config.php
mkdir -p /usr/src/wordpress/wp-content/uploads
chown -R www-data:www-data /usr/src/wordpress
dpkg --purge php-getid3 libjs-cropper libjs-underscore

a2enmod -q rewrite expires
a2disconf -q other-vhosts-access-log serve-cgi-bin
rm -f /etc/apache2/sites-enabled/* /var/www/html/*
cp files/wordpress.conf /etc/apache2/sites-enabled/000-wordpress.conf
sed -i 's,^ErrorLog .*,ErrorLog /proc/self/fd/2,' /etc/apache2/apache2.conf
# Apache's first line then names PHP, as in the official image.
sed -i 's/^expose_php = Off/expose_php = On/' /etc/php/*/apache2/php.ini
chown www-data:www-data /var/www/html
install -m 755 files/docker-entrypoint.sh files/apache2-foreground /usr/local/bin/
install -D -m 644 -t /usr/local/share/wordpress files/configure.php files/wait-for-database.php

# Perl is needed by a2enmod only, and file type detection by nobody: 60 MB less, and free, as it is the same layer.
rm -rf /usr/share/perl /usr/lib/*/perl/5.* /usr/lib/*/libperl.so.* /usr/lib/php/*/fileinfo.so /etc/php/*/*/conf.d/*fileinfo.ini \
    /usr/lib/file/magic.mgc /usr/share/misc/magic.mgc
