#!/bin/bash
# Makes a database cluster, whose superuser has the password in POSTGRES_PASSWORD_FILE, unless there is one.
set -e
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  initdb --username=postgres --auth=scram-sha-256 --pwfile="$POSTGRES_PASSWORD_FILE"
fi
exec "$@"
