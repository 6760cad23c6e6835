# One image for web, workers, reconcile and migrations; what a container is, its command says.
#
#   docker build -t crpbot-gate .                                   the index's own torch: on x86-64, with CUDA
#   docker build --build-arg TORCH_INDEX_URL=… -t crpbot-gate .     another index's, such as PyTorch's CPU builds
ARG PYTHON_IMAGE=python:3.11.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS packages
ARG TORCH_INDEX_URL=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /build
COPY constraints.txt ./
ENV LOCKED_INSTALL="pip install --require-hashes --no-deps --only-binary :all:"
# torch alone first: the largest layer by far, rebuilt only when the lock changes. Its file must have a hash of the lock.
RUN sed -n '/^# == torch$/,/^# == /p' constraints.txt > torch.txt \
    && pip download --no-deps --dest torch ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} \
        "$(sed -n 's/^\(torch==[^ ]*\).*/\1/p' torch.txt)" \
    && $LOCKED_INSTALL --no-index --find-links torch -r torch.txt && rm -r torch \
    && if pip show torch | grep -qE "^Requires:.*(nvidia|cuda)"; then \
        sed -n '/^# == cuda$/,$p' constraints.txt > cuda.txt && $LOCKED_INSTALL -r cuda.txt; fi
# The service's own dependencies, without those of development.
RUN sed -n '/^# == service$/,/^# == /p' constraints.txt > service.txt && $LOCKED_INSTALL -r service.txt

FROM ${PYTHON_IMAGE} AS service
ARG CODE_VERSION=0.1.0
RUN groupadd --system --gid 10001 crpbot \
    && useradd --system --uid 10001 --gid crpbot --home-dir /srv/crpbot --no-create-home crpbot
# A volume that is mounted here first takes over its owner: only the service reads its signing keys.
RUN install -d -m 0700 -o crpbot -g crpbot /var/lib/crpbot/keys /var/lib/crpbot/metrics
COPY --from=packages /opt/venv /opt/venv
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
COPY training training
COPY accounts accounts
COPY audit audit
COPY common common
COPY mlcore mlcore
COPY crpbot_runtime crpbot_runtime
COPY templates templates
COPY docs/glossary.md docs/
COPY docs/operations/runbooks docs/operations/runbooks
USER crpbot
EXPOSE 8000
CMD ["uvicorn", "crpbot.asgi:application", "--host", "0.0.0.0", "--port", "8000", "--no-access-log", \
     "--no-proxy-headers", "--loop", "uvloop", "--http", "crpbot.web.connections:BoundedConnection", "--ws", "none", \
     "--timeout-keep-alive", "75", "--timeout-graceful-shutdown", "10", "--backlog", "4096"]
