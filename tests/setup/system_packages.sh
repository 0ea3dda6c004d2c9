#!/usr/bin/env bash
# Installs the Debian packages that the tests need, and only those that are missing.
set -euo pipefail

missing=()
command -v cc >/dev/null || missing+=(gcc libc6-dev)
command -v c++ >/dev/null || missing+=(g++)
command -v make >/dev/null || missing+=(make)
command -v curl >/dev/null || missing+=(curl)
command -v valgrind >/dev/null || missing+=(valgrind libc6-dbg)
command -v chromedriver >/dev/null || missing+=(chromium chromium-driver)
# The virtual machine with an RDMA device (tests/fakes/soft_rdma).
command -v qemu-system-x86_64 >/dev/null || missing+=(qemu-system-x86)
[ -d /usr/share/doc/busybox-static ] || missing+=(busybox-static)
command -v cpio >/dev/null || missing+=(cpio)
[ -x /sbin/depmod ] || missing+=(kmod)
[ -e /usr/lib/x86_64-linux-gnu/libibverbs ] || missing+=(ibverbs-providers)
[ -x /usr/bin/rdma ] || [ -x /sbin/rdma ] || missing+=(iproute2)
"${PYTHON:-python3}" -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
[ ${#missing[@]} -eq 0 ] && exit 0

sudo=""
[ "$(id -u)" -eq 0 ] || sudo="sudo"
if ! command -v apt-get >/dev/null; then
  echo "missing: ${missing[*]}; no apt-get here: install them by hand" >&2
  exit 1
fi
$sudo apt-get update -qq
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}"
