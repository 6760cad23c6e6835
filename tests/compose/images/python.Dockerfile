# Instead of python:*-slim-bookworm: Debian's own Python, and the certificates and pip settings of this machine.
FROM crpbot-trial/debian
RUN apt-get update && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* && ln -s /usr/bin/python3 /usr/local/bin/python
COPY machine/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY machine/pip.conf /etc/pip.conf
CMD ["python"]
