# Instead of postgres:*-bookworm: Debian's PostgreSQL behind an entry point that understands the same variables.
FROM crpbot-trial/debian
RUN apt-get update && apt-get install -y --no-install-recommends postgresql-common \
    && sed -i 's/^#*create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf \
    && apt-get install -y --no-install-recommends postgresql && rm -rf /var/lib/apt/lists/* /var/cache/apt/* \
    && ln -s /usr/lib/postgresql/* /usr/lib/postgresql/current \
    && install -d -m 0700 -o postgres -g postgres /var/lib/postgresql/data \
    && install -d -o postgres -g postgres /run/postgresql
ENV PATH=/usr/lib/postgresql/current/bin:$PATH PGDATA=/var/lib/postgresql/data
COPY images/postgres.sh /usr/local/bin/docker-entrypoint.sh
STOPSIGNAL SIGINT
ENTRYPOINT ["/bin/sh", "/usr/local/bin/docker-entrypoint.sh"]
CMD ["postgres"]
