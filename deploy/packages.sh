# What Weir needs of Debian 12; sourced by tests/run and deploy/quickstart.

BUILD_PACKAGES=(
    gcc libc6-dev cmake ninja-build ccache pkg-config
    libevent-dev libevhtp-dev libhiredis-dev libyaml-dev liburcu-dev libxxhash-dev
    zlib1g-dev libbrotli-dev libzstd-dev libssl-dev libjemalloc-dev libsqlite3-dev libjansson-dev libluajit-5.1-dev libncurses-dev
    libcmocka-dev
)
TEST_PACKAGES=(
    python3 python3-hypothesis python3-pytest python3-pytest-xdist python3-yaml
    python3-brotli python3-zstandard python3-pyte nodejs openssl
    chromium fonts-dejavu-core python3-pil
    prometheus redis-server util-linux libfaketime strace systemd dpkg-dev
)
RUN_PACKAGES=(python3 curl)
BENCH_PACKAGES=(wrk haproxy nginx varnish)

# One apt-get call, and only when something is missing. Services do not start by it.
install_packages() {
    local missing=() package root=

    for package in "$@"; do
        dpkg-query -W -f '${Status}\n' "$package" 2>/dev/null | grep -q 'ok installed' ||
            missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    if ! command -v apt-get >/dev/null; then
        echo "not a Debian system; needed: ${missing[*]}" >&2
        return 1
    fi
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || { echo "run as root, or install: ${missing[*]}" >&2; return 1; }
        root=sudo
    fi
    $root apt-get update -qq
    $root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
        apt-get install -y -qq --no-install-recommends "${missing[@]}"
}
