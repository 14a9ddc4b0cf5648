#!/bin/sh
# Replaces all that `docker compose` keeps by a copy that backup.sh made; the simulator's payments stay, as a provider's would. Then
# `docker compose up --detach` starts everything.
set -eu
folder=${1:?usage: restore.sh FOLDER}
folder=$(cd "$folder" && pwd)
cd "$(dirname "$0")/../../.."

# All of it must be there before anything is deleted.
for volume in authority secrets postgres kafka; do gzip --test "$folder/$volume.tar.gz"; done
docker compose --profile check down
for volume in authority secrets postgres kafka edge; do docker volume rm --force "souk_$volume"; done
# Makes the volumes anew, as the images want them.
docker compose create
for volume in authority secrets postgres kafka; do
  docker run --rm --interactive --user 0 --network none --volume "souk_$volume:/volume" --entrypoint tar postgres:15.18-bookworm \
    -C /volume -xz < "$folder/$volume.tar.gz"
done
