# One image for web, workers, reconcile and migrations; what a container is, its command says.
#
#   docker build -t crpbot-gate .                               without CUDA; on x86-64 with TORCH_INDEX_URL, see below
#   docker build --build-arg TORCH=cuda -t crpbot-gate-gpu .    with it, for a worker with an NVIDIA GPU
#
# TORCH_INDEX_URL is the package index that torch is taken from: PyTorch's own has the CPU builds for x86-64.
ARG PYTHON_IMAGE=python:3.11.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS packages
ARG TORCH=cpu
ARG TORCH_INDEX_URL=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN apt-get update && apt-get install --yes --no-install-recommends binutils && python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /build
COPY constraints.txt ./
ENV LOCKED_INSTALL="pip install --require-hashes --no-deps --no-compile --only-binary :all:"
# torch alone first: the largest layer by far, rebuilt only when the lock changes. Its file must have a hash of the lock.
RUN sed -n '/^# == torch$/,/^# == /p' constraints.txt > torch.txt \
    && pip download --no-deps --dest torch ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} \
        "$(sed -n 's/^\(torch==[^ ]*\).*/\1/p' torch.txt)" \
    && $LOCKED_INSTALL --no-index --find-links torch -r torch.txt && rm -r torch \
    && if pip show torch | grep -qE "^Requires:.*(nvidia|cuda)"; then found=cuda; else found=cpu; fi \
    && if [ "$found" != "$TORCH" ]; then \
        echo "The index has a torch for $found, and the image is for $TORCH: set TORCH_INDEX_URL to another index." >&2; \
        exit 1; fi \
    && if [ "$found" = cuda ]; then \
        sed -n '/^# == cuda$/,$p' constraints.txt > cuda.txt && $LOCKED_INSTALL -r cuda.txt; fi
# The service's own dependencies, without those of development.
RUN sed -n '/^# == service$/,/^# == /p' constraints.txt > service.txt && $LOCKED_INSTALL -r service.txt
# The list of what the image holds, made by a program that it does not hold.
RUN sed -n '/^# == sbom$/,/^# == /p' constraints.txt > sbom.txt && $LOCKED_INSTALL --target /opt/sbom -r sbom.txt
COPY distribution/slim.sh ./
RUN sh slim.sh "$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
    && pip uninstall --yes --quiet setuptools pip
RUN python -c 'import runpy, sys; sys.path.append("/opt/sbom"); runpy.run_module("cyclonedx_py", run_name="__main__")' \
    environment --output-reproducible --output-file /opt/venv/sbom.cdx.json /opt/venv

FROM ${PYTHON_IMAGE} AS service
RUN groupadd --system --gid 10001 crpbot \
    && useradd --system --uid 10001 --gid crpbot --home-dir /srv/crpbot --no-create-home crpbot
# A volume that is mounted here first takes over its owner: only the service reads its signing keys.
RUN install -d -m 0700 -o crpbot -g crpbot /var/lib/crpbot/keys /var/lib/crpbot/metrics \
    /var/lib/crpbot/backups
# The base image's own pip: nothing is installed in a container.
RUN rm -rf /usr/local/lib/python3.*/site-packages/* /usr/local/lib/python3.*/ensurepip /usr/local/bin/pip*
COPY --from=packages /opt/venv /opt/venv
# Only now: another version of the code shares every layer above.
ARG CODE_VERSION=0.1.0
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    CRPBOT_PROFILE=production \
    CRPBOT_CODE_VERSION=${CODE_VERSION}
WORKDIR /srv/crpbot
COPY manage.py ./
COPY crpbot crpbot
COPY deploy deploy
COPY gates gates
COPY machines machines
COPY training training
COPY studies studies
COPY accounts accounts
COPY audit audit
COPY common common
COPY mlcore mlcore
COPY crpbot_runtime crpbot_runtime
COPY templates templates
COPY docs/glossary.md docs/
COPY docs/operations/runbooks docs/operations/runbooks
# Bytecode of what the processes import, and of nothing else: their disk is read-only, and they would compile it at each start.
RUN python -m compileall -q . && CRPBOT_PROFILE=embedded CRPBOT_STATE_DIR=/tmp/state PYTHONDONTWRITEBYTECODE= \
    python -c 'import crpbot.asgi, celery.bin.celery, crpbot.celery, uvicorn.main, mlcore.fitting.fit, \
        mlcore.fitting.logistic, onnxruntime' \
    && rm -rf /tmp/state
USER crpbot
EXPOSE 8000
CMD ["uvicorn", "crpbot.asgi:application", "--host", "0.0.0.0", "--port", "8000", "--no-access-log", \
     "--no-proxy-headers", "--loop", "uvloop", "--http", "crpbot.web.connections:BoundedConnection", "--ws", "none", \
     "--timeout-keep-alive", "75", "--timeout-graceful-shutdown", "10", "--backlog", "4096"]
