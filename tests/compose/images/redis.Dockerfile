# Instead of redis:*: Debian's Redis with the same user and number.
FROM crpbot-trial/debian
RUN groupadd --system --gid 999 redis && useradd --system --uid 999 --gid 999 --home-dir /data redis \
    && apt-get update && apt-get install -y --no-install-recommends redis-server && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
WORKDIR /data
CMD ["redis-server"]
