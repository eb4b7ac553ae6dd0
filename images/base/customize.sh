#!/bin/sh
# Runs at the end of mmdebstrap's work on the base tree. $1: the tree.
set -e
rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/* "$1"/var/cache/debconf/*-old "$1"/var/lib/dpkg/*-old "$1"/var/log/*
rm -rf "$1"/usr/share/zoneinfo/right "$1"/usr/share/zoneinfo/posix
# The machine's own: the orchestrator gives a container its resolver and its name, and sources name the machine's mirror.
rm -f "$1"/etc/resolv.conf "$1"/etc/hostname "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/* "$1"/etc/apt/apt.conf.d/99mmdebstrap
# The name everybody knows.
ln -s /usr/bin/kdig "$1"/usr/local/bin/dig
