#!/bin/sh
# Ends this instance when the service has not renewed the tag crpbot-heard for ten minutes, or when the time in the tag
# crpbot-seconds is over. Both tags are read from the metadata of the instance: it needs no key and no network.
set -u

METADATA=${CRPBOT_METADATA:-http://169.254.169.254/latest}
END=${CRPBOT_END_COMMAND:-shutdown -h now}
SILENT_SECONDS=${CRPBOT_SILENT_SECONDS:-600}
LONGEST_SECONDS=${CRPBOT_LONGEST_SECONDS:-5400}
EVERY_SECONDS=${CRPBOT_EVERY_SECONDS:-15}

# Seconds since the start of the system, which no correction of the clock changes.
read_uptime() { cut -d. -f1 /proc/uptime; }

read_metadata() {
    key=$(curl -sf --max-time 5 -X PUT -H "X-aws-ec2-metadata-token-ttl-seconds: 60" "$METADATA/api/token") || return 1
    curl -sf --max-time 5 -H "X-aws-ec2-metadata-token: $key" "$METADATA/$1"
}

is_number() { case "$1" in '' | *[!0-9]*) return 1 ;; esac; }

end_instance() {
    echo "crpbot-watchdog: $1; ending this instance"
    $END
}

# The instance is paid for since it was requested, which is before the system started.
count_earlier() {
    pending=$(read_metadata dynamic/instance-identity/document | sed -n 's/.*"pendingTime" *: *"\([^"]*\)".*/\1/p')
    requested=$(date -u -d "$pending" +%s 2>/dev/null) && [ -n "$pending" ] || requested=
    earlier=$(($(date -u +%s) - ${requested:-0}))
    # A clock that is far off says nothing; then the uptime counts.
    if [ "$earlier" -lt 0 ] || [ "$earlier" -gt 86400 ]; then earlier=$(read_uptime); fi
    echo "$earlier"
}

began=$(read_uptime)
earlier=$(count_earlier)
heard=
heard_at=$began
longest=$LONGEST_SECONDS
while :; do
    now=$(read_uptime)
    tag=$(read_metadata meta-data/tags/instance/crpbot-heard) || tag=
    if [ -n "$tag" ] && [ "$tag" != "$heard" ]; then heard=$tag heard_at=$now; fi
    tag=$(read_metadata meta-data/tags/instance/crpbot-seconds) || tag=
    if is_number "$tag" && [ "$tag" -lt "$LONGEST_SECONDS" ]; then longest=$tag; fi
    if [ $((now - heard_at)) -ge "$SILENT_SECONDS" ]; then
        end_instance "nothing heard from the service for $((now - heard_at)) seconds"
    elif [ $((now - began + earlier)) -ge "$longest" ]; then
        end_instance "its time of $longest seconds is over"
    fi
    sleep "$EVERY_SECONDS"
done
