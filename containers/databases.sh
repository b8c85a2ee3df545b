#!/usr/bin/env bash
# Run once by PostgreSQL's image, when its data is made: a database for each service, and its owner, who
# can reach no other.
set -euo pipefail

for service in store order warehouse warranty; do
    # Not on a command line, where every process of the container would see it.
    psql --quiet --set=ON_ERROR_STOP=1 --username postgres --set=name="$service" \
        --set=variable="${service^^}_PASSWORD" <<'SQL'
\getenv password :variable
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE CONNECT, TEMPORARY ON DATABASE :"name" FROM PUBLIC;
SQL
done
