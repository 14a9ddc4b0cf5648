#!/bin/sh
# Replaces all that `docker compose` keeps by a copy that backup.sh made. The simulator's payments are kept if there are some, as a
# provider's would be. Then `docker compose up --detach` starts everything.
set -eu
folder=${1:?usage: restore.sh FOLDER}
folder=$(cd "$folder" && pwd)
cd "$(dirname "$0")/../../.."
export COMPOSE_PROJECT_NAME=souk

# Nothing is deleted before all of the copy was read, and the images are there.
contains() { tar -tzf "$folder/$1.tar.gz" | grep -qxF "./$2" || { echo "$folder/$1.tar.gz has no $2"; exit 1; }; }
contains authority ca.key
contains secrets pki/ca.crt
contains postgres souk/PG_VERSION
contains kafka meta.properties
contains provider ""
docker compose create

trap 'echo "it is incomplete: nothing must start before restore.sh has succeeded"' EXIT
docker compose --profile check down
volumes="authority secrets postgres kafka"
for volume in $volumes edge; do docker volume rm "souk_$volume"; done
# Volumes are made as the images want them.
docker compose create
payments=$(docker run --rm --user 0 --network none --volume souk_provider:/volume:ro --entrypoint ls postgres:15.18-bookworm -A /volume)
[ -n "$payments" ] || volumes="$volumes provider"
for volume in $volumes; do
  docker run --rm --interactive --user 0 --network none --volume "souk_$volume:/volume" --entrypoint tar postgres:15.18-bookworm \
    -C /volume -xz < "$folder/$volume.tar.gz"
done
trap - EXIT
echo "$folder is restored"
