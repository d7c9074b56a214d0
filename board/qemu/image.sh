#!/usr/bin/env bash
# Makes what QEMU boots for one ARM target, in target/board/ARCHITECTURE: vmlinuz, initrd and root.squashfs.
#
# Kernel and BusyBox are Debian's, fetched by apt with a configuration of its own: the machine's stays as it is,
# and no root is needed. The C library is the cross compiler's, which the daemon was linked with. The root file
# system is read-only: BusyBox, the overlay of this folder, that of board/rootfs-overlay, and the daemon.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tools/cross-env.sh

# In the order in which they need each other; what a kernel has built in is left out.
MODULES=(virtio_mmio virtio_blk squashfs failover net_failover virtio_net)
# What the board is given of BusyBox. A static program of another architecture cannot be asked for all of it here.
PROGRAMS=(sh mount umount init poweroff reboot ip cat cp mv rm ls ln mkdir chown chmod echo printf test '[' true false
    sleep kill ps id grep sed awk head tail wc dmesg df free date)

target=$1
use_target "$target"
case $arch in
armhf) kernel=linux-image-armmp loader=ld-linux-armhf.so.3 ;;
arm64) kernel=linux-image-arm64 loader=ld-linux-aarch64.so.1 ;;
*) missing "no board for $target: one for armv7 or aarch64 with glibc can be made" ;;
esac
libraries=/usr/$prefix/lib
out=$PWD/target/board/$arch
apt=$out/apt

# Fetches packages of the target's architecture from Debian, as this release of it has them.
fetch() (
    . /etc/os-release
    rm -rf "$apt"
    mkdir -p "$apt"/{lists,archives}/partial
    : >"$apt/status"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]" \
        "${DEBIAN_MIRROR:-http://deb.debian.org/debian} ${VERSION_CODENAME:-stable} main" >"$apt/sources.list"
    cat >"$apt/apt.conf" <<CONF
Dir::Etc::SourceList "$apt/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State "$apt";
Dir::State::Status "$apt/status";
Dir::Cache "$apt";
APT::Architecture "$arch";
APT::Architectures { "$arch"; };
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
CONF
    export APT_CONFIG=$apt/apt.conf
    say "fetching $kernel and busybox-static for $arch"
    apt-get update -qq || return
    cd "$apt"
    # The kernel's package of that name is empty, and depends on the newest.
    apt-get download -qq busybox-static "$(apt-cache depends "$kernel" | awk '/Depends: linux-image/ { print $2; exit }')" ||
        return
    touch fetched
)

# contents PREFIX: the files of the package with such a name, as a tar archive.
contents() { dpkg-deb --fsys-tarfile "$apt/$1"*.deb; }

# Every file of the image is root's and of the year 1970; what changes is a tmpfs.
root_file_system() {
    local root=$out/root directory name
    rm -rf "$root"
    for directory in bin dev lib proc root run sbin sys tmp usr/bin var/log; do
        mkdir -p "$root/$directory"
    done
    contents busybox-static_ | tar -x -C "$root" ./bin/busybox
    for name in "${PROGRAMS[@]}"; do
        ln -s busybox "$root/bin/$name"
    done
    ln -s ../bin/busybox "$root/sbin/init"
    cp -R board/qemu/rootfs/. board/rootfs-overlay/. "$root"
    cp "$libraries/$loader" "$libraries/libc.so.6" "$libraries/libgcc_s.so.1" "$root/lib"
    cp "target/$target/release/lastorders" "$root/usr/bin"
    rm -f "$out/root.squashfs"
    mksquashfs "$root" "$out/root.squashfs" -all-root -all-time 0 -mkfs-time 0 -no-progress -quiet >/dev/null
}

initial_ram_file_system() {
    local ram=$out/ram module file name
    rm -rf "$ram"
    mkdir -p "$ram"/{bin,dev,modules,root}
    contents busybox-static_ | tar -x -C "$ram" ./bin/busybox
    for name in sh mount insmod switch_root poweroff; do
        ln -s busybox "$ram/bin/$name"
    done
    cp board/qemu/init "$ram/init"
    contents linux-image- |
        tar -x -C "$ram/modules" --transform 's:.*/::' --wildcards --no-anchored "${MODULES[@]/%/.ko*}" ./boot/'vmlinuz*'
    mv "$ram"/modules/vmlinuz* "$out/vmlinuz"
    # Newer kernels' are compressed, which BusyBox may not read.
    for file in "$ram"/modules/*.xz; do [ ! -e "$file" ] || xz -d "$file"; done
    for module in "${MODULES[@]}"; do
        [ ! -e "$ram/modules/$module.ko" ] || echo "$module.ko"
    done >"$ram/modules/order"
    (cd "$ram" && find . | cpio --quiet -o -H newc -R 0:0) | gzip >"$out/initrd"
}

need mksquashfs squashfs-tools
need cpio cpio
need xz xz-utils
mkdir -p "$out"
[ -e "$apt/fetched" ] || fetch || missing "cannot fetch $kernel and busybox-static for $arch from ${DEBIAN_MIRROR:-deb.debian.org}"
initial_ram_file_system
root_file_system
