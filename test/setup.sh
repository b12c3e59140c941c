#!/bin/sh
# Installs the Debian packages that `make check` (protobuf-compiler) and `make e2e` (QEMU, firmware, boot loader) need.
# Nothing that comes with a package is started. Does nothing, and needs no root, when all are there.
set -eu
packages="iproute2 qemu-system-x86 ipxe ipxe-qemu mtools dosfstools syslinux syslinux-common busybox-static protobuf-compiler"
missing=""
for p in $packages; do
  dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ]; then
  echo "make setup installs packages and needs root. Run it once as root, or: apt-get install$missing" >&2
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
