# The part of the official image's entry point that docker-compose.yml relies on.
set -eu
if [ "$(id -u)" = 0 ]; then
    chown postgres:postgres "$PGDATA"
    exec setpriv --reuid postgres --regid postgres --init-groups sh "$0" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    echo "$POSTGRES_PASSWORD" > /tmp/password
    initdb --username postgres --pwfile /tmp/password ${POSTGRES_INITDB_ARGS:-}
    rm /tmp/password
    pg_ctl --wait --options "-c listen_addresses=''" start
    createdb --username postgres "$POSTGRES_DB"
    for file in /docker-entrypoint-initdb.d/*.sql; do
        psql --username postgres --dbname "$POSTGRES_DB" --set ON_ERROR_STOP=1 --file "$file"
    done
    pg_ctl --wait --mode fast stop
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
    echo "listen_addresses = '*'" >> "$PGDATA/postgresql.conf"
fi
exec "$@"
