# Instead of caddy:*-alpine: Debian's Caddy, with its files in the same places.
FROM crpbot-trial/debian
RUN apt-get update && apt-get install -y --no-install-recommends caddy wget && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
# Names are resolved by Go itself, as in the official program: Debian's asks the C library, which sorts the addresses.
ENV XDG_CONFIG_HOME=/config XDG_DATA_HOME=/data GODEBUG=netdns=go
CMD ["caddy", "run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"]
