# Sourced by .ci/deployment and .ci/fresh: root folders of Debian for container images.

# The mirror that this machine installs its own packages from.
MIRROR=$(apt-get indextargets --format '$(REPO_URI)' | grep --invert-match security | head --lines 1)

# try SENTENCE COMMAND...: runs the command up to three times, then ends with the sentence.
try() {
    local sentence=$1 pause_s
    shift
    for pause_s in 10 30 0; do
        if "$@"; then return; fi
        sleep "$pause_s"
    done
    echo "$0: $sentence" >&2
    exit 1
}

# fetch_debian SUITE ROOT PACKAGES: a minimal Debian in the folder ROOT, where pip reaches the index of this machine.
fetch_debian() {
    try "debootstrap could not fetch Debian $1 from $MIRROR, three times." run_debootstrap "$@"
    cp -L /etc/ssl/certs/ca-certificates.crt "$2/etc/ssl/certs/"
    [ ! -e /etc/pip.conf ] || cp /etc/pip.conf "$2/etc/"
}

run_debootstrap() {
    rm -rf "$2"
    debootstrap --variant=minbase --include="ca-certificates,$3" "$1" "$2" "$MIRROR" >/dev/null
}
