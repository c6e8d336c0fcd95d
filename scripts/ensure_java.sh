#!/usr/bin/env bash
# See that Spark will find Java 17 or newer; install a headless JRE where the system lets us, else say how.
set -euo pipefail

OLDEST=17

# tuner passes over a JAVA_HOME without a Java in it; else JAVA_HOME goes before PATH.
[ -x "${JAVA_HOME:-}/bin/java" ] || unset JAVA_HOME

java_version() {
    "${JAVA_HOME:+$JAVA_HOME/bin/}java" -version 2>&1 | sed -nE 's/.*version "([0-9]+).*/\1/p' | head -n 1
}

has_java() {
    local version
    version=$(java_version || true)
    [ "${version:-0}" -ge "$OLDEST" ]
}

install_java() {
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update
    # Debian and Ubuntu releases differ in which of the two they have at 17 or newer.
    apt-get -qq -y --no-install-recommends install openjdk-17-jre-headless ||
        apt-get -qq -y --no-install-recommends install default-jre-headless
}

has_java && exit 0

if [ -n "${JAVA_HOME:-}" ]; then
    echo "JAVA_HOME is $JAVA_HOME, where there is no Java $OLDEST or newer, which Spark needs:" \
        "unset JAVA_HOME or set it to the folder of a newer Java." >&2
    exit 1
fi

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing Java, which Spark needs, with apt-get ..." >&2
    log=$(mktemp)
    install_java >"$log" 2>&1 && has_java && rm -f "$log" && exit 0
    cat "$log" >&2
fi

echo "Spark needs Java $OLDEST or newer and none was found: install it (Debian or Ubuntu: sudo apt-get install" \
    "openjdk-17-jre-headless; Fedora: sudo dnf install java-latest-openjdk-headless; macOS: brew install" \
    "openjdk@17), or set JAVA_HOME to the folder of one." >&2
exit 1
