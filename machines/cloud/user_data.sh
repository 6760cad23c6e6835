#!/bin/sh
# Run once by cloud-init, when an instance boots for the first time: the watchdog, then a worker from the image.
# It holds no secret: the worker's environment is a parameter that only the instance's role may read.
set -eu

# Should all that follows fail, the instance ends at its bound all the same.
shutdown -h +@MINUTES@

install -d -m 0755 /opt/crpbot
cat > /opt/crpbot/watchdog.sh <<'END_OF_WATCHDOG'
@WATCHDOG@
END_OF_WATCHDOG
cat > /etc/systemd/system/crpbot-watchdog.service <<'END_OF_UNIT'
[Unit]
Description=Ends this instance when the crpbot gate no longer asks for it
[Service]
Environment=CRPBOT_LONGEST_SECONDS=@LONGEST_SECONDS@
ExecStart=/bin/sh /opt/crpbot/watchdog.sh
Restart=always
RestartSec=5
[Install]
WantedBy=multi-user.target
END_OF_UNIT
systemctl daemon-reload
systemctl enable --now crpbot-watchdog.service

key=$(curl -sf -X PUT -H "X-aws-ec2-metadata-token-ttl-seconds: 60" http://169.254.169.254/latest/api/token)
instance=$(curl -sf -H "X-aws-ec2-metadata-token: $key" http://169.254.169.254/latest/meta-data/instance-id)
umask 077
aws ssm get-parameter --region @REGION@ --name @PARAMETER@ --with-decryption --query Parameter.Value --output text \
    > /run/crpbot-worker.env
docker run --detach --name crpbot-worker --restart unless-stopped --init --gpus all --read-only --tmpfs /tmp \
    --cap-drop ALL --security-opt no-new-privileges --env-file /run/crpbot-worker.env \
    --env CRPBOT_WORKER_RATE_USD_PER_HOUR=@RATE@ @IMAGE@ \
    celery -A crpbot worker --queues training --concurrency @SLOTS@ --hostname "worker@$instance" --loglevel INFO
