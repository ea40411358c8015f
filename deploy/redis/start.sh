#!/bin/sh
# Starts Redis with the users of users.acl. `start.sh CONF ACL SECRETS RUN [redis-server options]`
#
#   SECRETS/redis-password, SECRETS/redis-deploy-password   files of one line, 16 or more characters
#   RUN                                                     a folder to write; the users go there
#
# A password may hold letters, digits, - and _, since it stands in a URL. Only digests are written.
set -eu
umask 077
[ $# -ge 4 ] || { echo "usage: $0 CONF ACL SECRETS RUN [OPTION...]" >&2; exit 2; }
conf=$1 acl=$2 secrets=$3
run=$(cd "$4" && pwd)  # Redis reads it from the folder that it works in
shift 4

digest() {
    password=$(cat "$secrets/$1")
    case $password in *[!A-Za-z0-9_-]*) echo "$1: only A-Z a-z 0-9 - _" >&2; exit 2 ;; esac
    [ ${#password} -ge 16 ] || { echo "$1: 16 or more characters" >&2; exit 2; }
    printf '%s' "$password" | sha256sum | cut -d ' ' -f 1
}

runtime=$(digest redis-password)
deploy=$(digest redis-deploy-password)
# Redis takes no comments in this file.
sed -e '/^#/d' -e "s/RUNTIME_DIGEST/$runtime/" -e "s/DEPLOY_DIGEST/$deploy/" "$acl" > "$run/users.acl"
exec redis-server "$conf" --aclfile "$run/users.acl" "$@"
