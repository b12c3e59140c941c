#!/bin/sh
# Installs the Debian packages that `make check` (protoc, and the definitions that ours import) and `make e2e` (QEMU,
# firmware, boot loader) need, and unpacks a Debian kernel into .cache/kernel. Needs no root when all of it is there.
set -eu
target=setup
. "$(dirname "$0")/packages.sh"
need protobuf-compiler libprotobuf-dev \
  iproute2 qemu-system-x86 ipxe ipxe-qemu mtools dosfstools syslinux syslinux-common busybox-static

# Debian's kernel for cloud guests, unpacked and not installed: the newest that the package lists name.
cache="$(cd "$(dirname "$0")/.." && pwd)/.cache/kernel"
[ ! -e "$cache/vmlinuz" ] || exit 0
newest() { apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/ *Depends: \(linux-image-.*\)/\1/p' | head -n 1; }
name=$(newest)
if [ -z "$name" ] && [ "$(id -u)" = 0 ]; then
  apt-get update -qq
  name=$(newest)
fi
[ -n "$name" ] || { echo "the package lists are empty: run apt-get update as root" >&2; exit 1; }
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
(cd "$tmp" && apt-get -o APT::Sandbox::User=root download -qq "$name" && dpkg-deb -x linux-image-*.deb x)
rm -rf "$cache" # of a run that was cut
mkdir -p "$cache"
mv "$tmp"/x/lib/modules/* "$cache/modules"
mv "$tmp"/x/boot/vmlinuz-* "$cache/vmlinuz" # last: its presence says that all is there
