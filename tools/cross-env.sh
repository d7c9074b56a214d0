# shellcheck shell=bash
# What the scripts for ARM share; sourced by them, with the top level as the working directory.
#
# For each target: the Debian packages and the program prefixes of its compiler and emulator. `need` finds programs, or
# says the command that installs them and stops: nothing here installs anything. `cross_cargo` is a cargo
# with the source of std, which is built anew for the target: what rustup ships for it carries 180 KB that reads
# debug information nobody flashes, so that backtraces show function names.

# shellcheck disable=SC2034 # for those that source this
TARGETS=(armv7-unknown-linux-gnueabihf aarch64-unknown-linux-gnu)

prefix() { case $1 in armv7*) echo arm-linux-gnueabihf ;; *) echo aarch64-linux-gnu ;; esac; }
emulator() { case $1 in armv7*) echo qemu-arm ;; *) echo qemu-aarch64 ;; esac; }
# Every ARMv7-A has Thumb-2, in which the daemon is a quarter smaller, but rustc takes the long encoding unless asked.
# It warns of each use that the name may change: lints are for `make lint`, so no warnings here. A 32-bit ARM has
# pages of 4 KiB, but ld leaves room for 64 KiB in the file.
flags() {
    case $1 in
    armv7*) echo "-Ctarget-feature=+thumb-mode -Awarnings -Clink-arg=-Wl,-z,max-page-size=4096" ;;
    esac
}
packages() {
    case $1 in
    armv7*) echo "gcc-arm-linux-gnueabihf libc6-dev-armhf-cross" ;;
    *) echo "gcc-aarch64-linux-gnu libc6-dev-arm64-cross" ;;
    esac
}

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

need_compiler() {
    # shellcheck disable=SC2046
    need "$(prefix "$1")-gcc" $(packages "$1")
    # The compiler alone does not bring the C library to link with.
    [ -e "/usr/$(prefix "$1")/lib/libc.so" ] || missing "no C library for $1; get it with: apt-get install $(packages "$1")"
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

# cross_cargo COMMAND TARGET ARGUMENT...
cross_cargo() {
    local command=$1 target=$2
    shift 2
    # -Zbuild-std is not stable yet; its options have been these since 2023.
    RUSTC_BOOTSTRAP=1 RUSTFLAGS="$(flags "$target") ${RUSTFLAGS:-}" "$CARGO" "$command" --locked --target "$target" \
        -Zbuild-std=std,panic_unwind,test,proc_macro -Zbuild-std-features=optimize_for_size "$@"
}
