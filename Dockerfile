# Base images are named by patch version. `make pin-images` adds the digests for a release.
FROM python:3.13.16-slim-trixie AS builder

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build

# The wheel is built with a locked backend in an environment that stays behind.
COPY requirements-build.lock ./
RUN python -m venv /build/venv && /build/venv/bin/python -m pip install --require-hashes -r requirements-build.lock

# Dependencies first: this layer changes only when the lock does.
COPY requirements.lock ./
RUN python -m venv --without-pip /opt/evergrant \
    && python -m pip --python /opt/evergrant/bin/python install --require-hashes --no-compile -r requirements.lock

COPY pyproject.toml README.md LICENSE ./
COPY migrations ./migrations
COPY src ./src
# Bytecode is compiled here, because the root file system is read-only later.
RUN /build/venv/bin/python -m hatchling build -t wheel -d /build/dist \
    && python -m pip --python /opt/evergrant/bin/python install --no-deps --no-index --no-compile /build/dist/*.whl \
    && /opt/evergrant/bin/python -m compileall -q /opt/evergrant/lib


FROM python:3.13.16-slim-trixie

ENV PATH=/opt/evergrant/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    EVERGRANT_DATA_DIR=/var/lib/evergrant

COPY --from=builder /opt/evergrant /opt/evergrant
# The last command in this image: what runs later needs neither a shell nor anything that installs.
RUN install -d -m 0700 -o 10001 -g 10001 /var/lib/evergrant \
    && rm -rf /usr/local/lib/python3.13/site-packages /usr/local/lib/python3.13/ensurepip /usr/local/bin/pip* \
    && rm -f /usr/bin/apt* /usr/bin/dpkg* /usr/bin/perl* /usr/bin/bash /usr/bin/rbash /usr/bin/dash /usr/bin/sh

# By number, so that orchestrators can see that it is not root.
USER 10001:10001
WORKDIR /var/lib/evergrant
VOLUME /var/lib/evergrant
EXPOSE 8420

HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8420/healthz', timeout=2)"]

ENTRYPOINT ["evergrant"]
CMD ["serve", "--host", "0.0.0.0"]
