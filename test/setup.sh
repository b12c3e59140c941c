#!/bin/sh
# Installs the Debian packages that `make check` (protobuf-compiler) and `make e2e` (QEMU, firmware, boot loader) need, and
# unpacks a Debian kernel into .cache/kernel. Nothing that comes with a package is started. Needs no root when all packages
# are there.
set -eu
packages="iproute2 qemu-system-x86 ipxe ipxe-qemu mtools dosfstools syslinux syslinux-common busybox-static protobuf-compiler"
missing=""
for p in $packages; do
  dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
kernel() {
  # Debian's kernel for cloud guests, unpacked and not installed: the newest that the package lists name.
  cache="$(cd "$(dirname "$0")/.." && pwd)/.cache/kernel"
  [ -e "$cache/vmlinuz" ] && return
  tmp=$(mktemp -d)
  chmod 755 "$tmp"
  name=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/ *Depends: \(linux-image-.*\)/\1/p' | head -n 1)
  [ -n "$name" ] || { echo "the package lists are empty: run apt-get update" >&2; exit 1; }
  (cd "$tmp" && apt-get download -qq "$name" && dpkg-deb -x linux-image-*.deb x)
  mkdir -p "$cache"
  mv "$tmp"/x/lib/modules/* "$cache/modules"
  mv "$tmp"/x/boot/vmlinuz-* "$cache/vmlinuz"
  rm -rf "$tmp"
}

if [ -z "$missing" ]; then
  kernel
  exit 0
fi
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
kernel
