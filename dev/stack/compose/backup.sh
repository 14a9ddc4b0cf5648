#!/bin/sh
# Copies all that `docker compose` keeps into a folder: databases, topics, secrets, and the key of the authority. Everything is stopped
# first, and stays so: databases and topics that were copied at different times would contradict each other. Then
# `docker compose up --detach` goes on. The folder is worth as much as the shop: keep it elsewhere, and encrypted.
set -eu
folder=${1:?usage: backup.sh FOLDER}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
cd "$(dirname "$0")/../../.."
umask 077

docker compose stop
for volume in authority secrets postgres kafka; do
  docker run --rm --user 0 --network none --volume "souk_$volume:/volume:ro" --entrypoint tar postgres:15.18-bookworm \
    -C /volume -cz . > "$folder/$volume.tar.gz.half"
  mv "$folder/$volume.tar.gz.half" "$folder/$volume.tar.gz"
  echo "$folder/$volume.tar.gz: $(wc -c < "$folder/$volume.tar.gz") bytes"
done
