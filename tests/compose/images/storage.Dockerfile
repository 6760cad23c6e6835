# Instead of SeaweedFS: moto's S3, behind the same address and health check, with its objects in /data.
FROM crpbot-trial/python
RUN apt-get update && apt-get install -y --no-install-recommends wget && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
RUN python -m venv /opt/venv
COPY machine/moto.txt /tmp/
RUN /opt/venv/bin/pip install --no-cache-dir --require-hashes --no-deps --only-binary :all: -r /tmp/moto.txt
COPY images/object_store.py /usr/local/bin/
ENTRYPOINT ["/opt/venv/bin/python", "/usr/local/bin/object_store.py"]
