# Sourced by tools/demo and tools/test: what both need before they build and run.

say() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }

need_toolchain() {
    command -v cargo >/dev/null || { [ -f "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"; } || true
    command -v cargo >/dev/null || { say "cargo is missing: install Rust (https://rustup.rs), then run this again"; exit 1; }
    command -v cc >/dev/null || { say "a C compiler is missing: on Debian, 'apt-get install gcc'"; exit 1; }
}

# Sets `runner` to what programs run under: nothing where the program $1 finds an adapter, else software Vulkan.
choose_runner() {
    runner=""
    if [ "${RAGLAN_SOFTWARE:-0}" = 0 ] && "$1" devices --json 2>/dev/null | grep -q '"name"'; then
        return
    fi
    say "no GPU that Vulkan knows here: software Vulkan stands in (correct, and slow)"
    local folder=${RAGLAN_LAVAPIPE:-${XDG_DATA_HOME:-$HOME/.local/share}/raglan/lavapipe}
    tools/install-lavapipe "$folder"
    runner=$folder/vkrun
}
