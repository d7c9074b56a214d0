# shellcheck shell=bash
# What the scripts for other targets share; sourced by them, with the top level as the working directory.
#
# `use_target` says of a target which of Debian's compilers and emulators it has. `need` finds programs, or
# says the command that installs them and stops: nothing here installs anything. `cross_cargo` is a cargo
# with the source of std, which is built anew for the target: what rustup ships for it carries 180 KB that reads
# debug information nobody flashes, so that backtraces show function names.

# Those of the boards. Scripts take others by name.
# shellcheck disable=SC2034 # for those that source this
TARGETS=(armv7-unknown-linux-gnueabihf aarch64-unknown-linux-gnu)

# Sets, for a target, the `prefix` of its compiler, its `emulator` (none for this machine's own), the `flags` of rustc, and for
# one with musl also `musl`, the name of that library's folders.
# shellcheck disable=SC2034
use_target() {
    # Every ARMv7-A has Thumb-2, in which the daemon is a quarter smaller, but rustc takes the long encoding unless asked.
    # It warns of each use that the name may change: lints are for `make lint`, so no warnings here. A 32-bit ARM has
    # pages of 4 KiB, but ld leaves room for 64 KiB in the file.
    local thumb="-Ctarget-feature=+thumb-mode -Awarnings -Clink-arg=-Wl,-z,max-page-size=4096"
    emulator='' flags='' musl=''
    case $1 in
    armv7-unknown-linux-gnueabihf) prefix=arm-linux-gnueabihf arch=armhf emulator=qemu-arm flags=$thumb ;;
    armv7-unknown-linux-musleabihf)
        prefix=arm-linux-gnueabihf arch=armhf emulator=qemu-arm flags=$thumb musl=arm-linux-musleabihf
        ;;
    armv5te-unknown-linux-gnueabi) prefix=arm-linux-gnueabi arch=armel emulator=qemu-arm ;;
    aarch64-unknown-linux-gnu) prefix=aarch64-linux-gnu arch=arm64 emulator=qemu-aarch64 ;;
    aarch64-unknown-linux-musl) prefix=aarch64-linux-gnu arch=arm64 emulator=qemu-aarch64 musl=aarch64-linux-musl ;;
    riscv64gc-unknown-linux-gnu) prefix=riscv64-linux-gnu arch=riscv64 emulator=qemu-riscv64 ;;
    s390x-unknown-linux-gnu) prefix=s390x-linux-gnu arch=s390x emulator=qemu-s390x ;;
    mipsel-unknown-linux-gnu) prefix=mipsel-linux-gnu arch=mipsel emulator=qemu-mipsel ;;
    powerpc-unknown-linux-gnu) prefix=powerpc-linux-gnu arch=powerpc emulator=qemu-ppc ;;
    x86_64-unknown-linux-musl) prefix=x86_64-linux-gnu arch=amd64 musl=x86_64-linux-musl ;;
    *) missing "no target $1 here; those of tools/cross-env.sh are known" ;;
    esac
    if [ -n "$musl" ] && ! has_own_musl "$1"; then
        # By the description of it that Debian's has for gcc. std looks for gcc's unwinder by the name of LLVM's.
        flags="$flags -Clink-self-contained=no -Crelocation-model=static -L$PWD/target/$1/unwind \
            -Clink-arg=-specs=/usr/lib/$musl/musl-gcc.specs"
    fi
}

# rustup's std for a target with musl brings that and an unwinder.
has_own_musl() { [ -e "$("${RUSTC:-rustc}" --print sysroot)/lib/rustlib/$1/lib/self-contained/libunwind.a" ]; }

# Exit code 3 is "the tools are not to be had here", which continuous integration reports as skipped.
missing() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 3
}

# need PROGRAM PACKAGE...: the program is there, or those packages have it.
need() {
    local program=$1
    shift
    command -v "$program" >/dev/null || missing "$program is missing; get it with: apt-get install $*"
}

# The compiler of a target and the C library to link with, which the compiler alone does not bring.
need_compiler() {
    use_target "$1"
    [ "$prefix" = "$(uname -m)-linux-gnu" ] || need "$prefix-gcc" "gcc-${prefix/_/-}" "libc6-dev-$arch-cross"
    if [ -z "$musl" ]; then
        [ -e "/usr/$prefix/lib/libc.so" ] || missing "no C library for $1; get it with: apt-get install libc6-dev-$arch-cross"
    elif ! has_own_musl "$1"; then
        # Elsewhere than on a 32-bit ARM gcc's unwinder asks the C library what musl does not know.
        [[ $arch = armhf && -e /usr/lib/$musl/libc.a ]] ||
            missing "no C library for $1; get it with: rustup target add $1," \
                "or for armv7: dpkg --add-architecture armhf && apt-get update && apt-get install musl-dev:armhf"
        mkdir -p "target/$1/unwind"
        ln -sf "$("$prefix-gcc" -print-file-name=libgcc_eh.a)" "target/$1/unwind/libunwind.a"
    fi
}

# Sets CARGO and RUSTC to a toolchain that has the source of std: rustup's, or else Debian's.
need_std_source() {
    local source=lib/rustlib/src/rust/library/Cargo.lock
    CARGO=${CARGO:-cargo}
    RUSTC=${RUSTC:-rustc}
    if ! command -v "$RUSTC" >/dev/null || [ ! -e "$("$RUSTC" --print sysroot)/$source" ]; then
        if [ ! -e "/usr/$source" ] || [ ! -x /usr/bin/cargo ]; then
            missing "no source of std; get it with: rustup component add rust-src," \
                "or: apt-get install rustc-web cargo-web rust-web-src"
        fi
        CARGO=/usr/bin/cargo
        RUSTC=/usr/bin/rustc
    fi
    export CARGO RUSTC
}

# What runs a program of a target here, as words.
runner() {
    use_target "$1"
    [ -z "$emulator" ] || echo "$emulator -L /usr/$prefix"
}

# cross_cargo COMMAND TARGET ARGUMENT...
cross_cargo() {
    local command=$1 target=$2 settings
    shift 2
    use_target "$target"
    settings=("LINKER=$prefix-gcc")
    [ -z "$emulator" ] || settings+=("RUNNER=$(runner "$target")")
    # -Zbuild-std is not stable yet; its options have been these since 2023. -Ztrim-paths keeps this machine's paths out of
    # the binary, which is then the same from every clone.
    env "${settings[@]/#/CARGO_TARGET_$(tr a-z- A-Z_ <<<"$target")_}" RUSTC_BOOTSTRAP=1 \
        RUSTFLAGS="$flags ${RUSTFLAGS:-}" "$CARGO" "$command" --locked --target "$target" \
        -Zbuild-std=std,panic_unwind,test,proc_macro -Zbuild-std-features=optimize_for_size \
        -Ztrim-paths --config 'profile.release.trim-paths="object"' "$@"
}
