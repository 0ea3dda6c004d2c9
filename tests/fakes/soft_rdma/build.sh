#!/bin/bash
# Builds the virtual machine that has an RDMA device: build.sh CACHE
#
# Debian's own kernel, downloaded and unpacked but not installed, and an initial file system with
# busybox, the kernel's modules for soft-RoCE and 9p, and ./init. Running this again is free while the
# recipe is the same. Prints the machine's folder, and nothing else, on standard output.
set -euo pipefail
exec 3>&1 1>&2

[ $# -eq 1 ] || { echo "usage: build.sh CACHE"; exit 64; }
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$1"
home=$(cd "$1" && pwd)/soft-rdma
exec 9>"$1/soft-rdma.lock"
flock 9
want=$(cat "$here/build.sh" "$here/init" | sha256sum | cut -c1-16)
if [ -f "$home/built.stamp" ] && [ "$(cat "$home/built.stamp")" = "$want" ]; then
    echo "$home" >&3
    exit 0
fi
rm -rf "$home"
mkdir -p "$home/debian" "$home/kernel" "$home/root"
cd "$home"

package=$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image/ {print $2; exit}')
(cd debian && apt-get download -q "$package")
modules=()
for part in drivers/infiniband/core drivers/infiniband/sw net/9p fs/9p fs/netfs fs/fscache lib \
    crypto arch/x86/crypto drivers/virtio drivers/block net/core fs/configfs; do
    modules+=("./lib/modules/*/kernel/$part/*")
done
for module in net/ipv4/udp_tunnel net/ipv6/ip6_udp_tunnel drivers/net/veth; do
    modules+=("./lib/modules/*/kernel/$module.ko*")
done
# Patterns that a kernel has nothing for are no error.
dpkg-deb --fsys-tarfile debian/*.deb |
    tar -x -C kernel --wildcards './boot/vmlinuz-*' './lib/modules/*/modules.*' "${modules[@]}" || true
[ -d kernel/lib/modules ]
cp kernel/boot/vmlinuz-* vmlinuz
depmod -b kernel "${package#linux-image-}"

mkdir -p root/{bin,sbin,lib,proc,sys,dev,mnt}
cp "$(command -v busybox)" root/bin/busybox
cp -a kernel/lib/modules root/lib/modules
install -m 755 "$here/init" root/init
(cd root && find . | cpio -o -H newc --quiet | gzip -1 > ../initramfs.gz)
rm -rf kernel root debian
printf '%s' "$want" > built.stamp
echo "$home" >&3
