#!/bin/sh
# Makes the certificates with which gateways and workers know each other: mutual TLS, one CA.
#
#   deploy/tls.sh FOLDER NAME...     NAME: what gateways call workers; *.NAME is one for all below it
#
#   FOLDER/ca       ca.crt, ca.key             the key signs for both sides: keep it off the servers
#   FOLDER/worker   tls.crt, tls.key, ca.crt   for those names, and as a server only
#   FOLDER/gateway  tls.crt, tls.key, ca.crt   as a client only
#
# Pairs that are good for 30 more days, and for these names, are kept. DAYS (397) is how long new
# ones last. A CA is made anew with them: start both sides again.
set -eu
umask 077
[ $# -ge 2 ] || { echo "usage: $0 FOLDER NAME..." >&2; exit 2; }
folder=$1
shift
days=${DAYS:-397}
names=$(printf 'DNS:%s,' "$@")
names=${names%,}

good() {
    for side in worker gateway; do
        openssl x509 -in "$folder/$side/tls.crt" -noout -checkend 2592000 >/dev/null 2>&1 || return 1
        openssl verify -CAfile "$folder/$side/ca.crt" "$folder/$side/tls.crt" >/dev/null 2>&1 || return 1
    done
    # As openssl prints them: with a space behind each comma.
    shown=$(openssl x509 -in "$folder/worker/tls.crt" -noout -ext subjectAltName | tail -n 1 | tr -d ' ')
    [ "$shown" = "$names" ]
}

new_key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }

pair() { # FOLDER SUBJECT EXTENSIONS
    mkdir -p "$1"
    new_key "$1/tls.key"
    printf '%b' "basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\n$3\n" > "$made/extensions"
    openssl req -new -key "$1/tls.key" -subj "/CN=$2" -out "$made/request"
    openssl x509 -req -in "$made/request" -CA "$folder/ca/ca.crt" -CAkey "$folder/ca/ca.key" \
        -set_serial "0x$(openssl rand -hex 16)" -days "$days" -extfile "$made/extensions" \
        -out "$1/tls.crt" 2>/dev/null
    cp "$folder/ca/ca.crt" "$1/ca.crt"
}

if good; then
    echo "kept what is in $folder"
    exit 0
fi
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
mkdir -p "$folder/ca"
new_key "$folder/ca/ca.key"
openssl req -x509 -new -key "$folder/ca/ca.key" -days "$days" -subj "/CN=penstock workers" \
    -addext "keyUsage=critical,keyCertSign" -out "$folder/ca/ca.crt"
pair "$folder/worker" "penstock worker" "extendedKeyUsage=serverAuth\nsubjectAltName=$names"
pair "$folder/gateway" "penstock gateway" "extendedKeyUsage=clientAuth"
echo "made $folder/ca, $folder/worker and $folder/gateway, good for $days days"
