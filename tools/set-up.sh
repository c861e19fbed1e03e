# Sourced by tools/demo and tools/test: what both need before they build and run.
# RAGLAN_SOFTWARE=1 takes software Vulkan even where there is a GPU; RAGLAN_LAVAPIPE names the folder that it is kept in.

say() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }

target=${CARGO_TARGET_DIR:-target}

need_toolchain() {
    if ! command -v cargo >/dev/null && [ -f "$HOME/.cargo/env" ]; then
        . "$HOME/.cargo/env"
    fi
    command -v cargo >/dev/null || { say "cargo is missing: install Rust (https://rustup.rs), then run this again"; exit 1; }
    command -v cc >/dev/null || { say "a C compiler is missing: on Debian, 'apt-get install gcc'"; exit 1; }
}

# Sets the array `runner` to what programs run under: nothing where the program $1 finds a GPU, else software Vulkan.
choose_runner() {
    runner=()
    local devices
    devices=$("$1" devices --json 2>/dev/null || true)
    if [ "${RAGLAN_SOFTWARE:-0}" = 0 ] && grep -qE '"device_type": ?"(discrete|integrated|virtual|other)"' <<<"$devices"; then
        return
    fi
    if [ "$(uname -s)" != Linux ]; then
        say "no GPU was found ('$1 devices' says more)"
        exit 1
    fi
    say "no GPU that Vulkan knows here: software Vulkan stands in (correct, and slow)"
    local folder=${RAGLAN_LAVAPIPE:-${XDG_DATA_HOME:-$HOME/.local/share}/raglan/lavapipe}
    tools/install-lavapipe "$folder"
    runner=("$folder/vkrun")
}
