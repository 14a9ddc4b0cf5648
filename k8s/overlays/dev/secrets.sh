#!/bin/sh
# Makes the Secrets of this overlay from a folder that `stack secrets` has filled, or brings them up to date:
#   docker run --rm -u "$(id -u)" -v "$PWD/.dev/kind:/secrets" souk-laptop:dev stack secrets /secrets
#   k8s/overlays/dev/secrets.sh .dev/kind/keys
set -eu
keys=$1
secret() {
  name=$1; shift
  for file; do set -- "$@" "--from-file=${file%%=*}=$keys/${file#*=}"; shift; done
  kubectl -n souk create secret generic "$name" "$@" --dry-run=client -o yaml | kubectl apply -f -
}
password() { echo "$1.database-password=souk_$1.password"; }
redis=redis.password=redis.password

kubectl apply -f "$(dirname "$0")/../../base/namespace.yaml"
secret gateway $redis
secret user "$(password user)" $redis mail.key=mail.key access.pem=access/first.pem
secret product "$(password product)" $redis
for role in inventory order analytics; do secret "$role" "$(password "$role")"; done
secret notification "$(password notification)"
secret payment "$(password payment)" provider.key=provider.key webhook.key=webhook.key
services=$(for role in user product inventory order payment notification analytics; do password "$role"; done)
secret migrate postgres.database-password=postgres.password $services
secret check $services provider.key=provider.key
secret postgres postgres.password=postgres.password
secret redis redis.conf=redis.conf
secret provider webhook.key=webhook.key
