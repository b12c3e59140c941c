#!/bin/sh
# Installs the Debian packages that `make bench` sets Farrier beside: etcd, and PostgreSQL with pgbench.
set -eu
target=bench-setup
. "$(dirname "$0")/packages.sh"
need etcd-server postgresql-contrib
