# need PACKAGE...: installs the Debian packages of the list that are missing. Nothing that comes with a package is started.
# Needs root only when one is missing. Sourced by setup.sh and setup-bench.sh, which say which make target they serve.
need() {
  missing=""
  for p in "$@"; do
    dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
  done
  [ -n "$missing" ] || return 0
  if [ "$(id -u)" != 0 ]; then
    echo "make $target installs packages and needs root. Run it once as root, or: apt-get install --no-install-recommends$missing" >&2
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
}
