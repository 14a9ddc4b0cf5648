#!/bin/sh
# Copies all that `docker compose` keeps into a new folder: databases, topics, the simulator's payments, secrets, and the key of the
# authority. Everything is stopped first, and stays so: databases and topics that were copied at different times would contradict
# each other. Then `docker compose up --detach` goes on. The folder is worth as much as the shop: keep it elsewhere, and encrypted.
set -eu
folder=${1:?usage: backup.sh FOLDER}
[ ! -e "$folder" ] || { echo "$folder is there already"; exit 1; }
rm -rf "$folder.half"
mkdir -p "$folder.half"
half=$(cd "$folder.half" && pwd)
cd "$(dirname "$0")/../../.."
export COMPOSE_PROJECT_NAME=souk
umask 077

volumes="authority secrets postgres kafka provider"
for volume in $volumes; do docker volume inspect "souk_$volume" > "$half/inspected"; done
rm "$half/inspected"
docker compose stop
for volume in $volumes; do
  docker run --rm --user 0 --network none --volume "souk_$volume:/volume:ro" --entrypoint tar postgres:15.18-bookworm \
    -C /volume -cz . > "$half/$volume.tar.gz"
done
# A folder of this name has all of it.
mv "$half" "${half%.half}"
echo "${half%.half}:"
(cd "${half%.half}" && wc -c ./*.tar.gz)
