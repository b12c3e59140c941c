#!/bin/sh
# Installs the Debian packages that `make bench` sets Farrier beside: etcd, and PostgreSQL with pgbench. Nothing that comes
# with a package is started. Needs no root when all packages are there.
set -eu
packages="etcd-server postgresql-contrib"
missing=""
for p in $packages; do
  dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
if [ -z "$missing" ]; then
  exit 0
fi
if [ "$(id -u)" != 0 ]; then
  echo "make bench-setup installs packages and needs root. Run it once as root, or: apt-get install$missing" >&2
  exit 1
fi
policy=/usr/sbin/policy-rc.d
made=""
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
  made=1
fi
trap '[ -z "$made" ] || rm -f "$policy"' EXIT
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 # a list of names
apt-get install -y -qq --no-install-recommends $missing >/dev/null
