# wsproxy as a container: shares the agent's network namespace, so it listens on loopback only.
# See config/compose.yaml and config/kubernetes-sidecar.yaml.
ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION}-slim AS build
WORKDIR /src
COPY requirements/build.txt requirements/run.txt requirements/
RUN python -m venv /build \
    && /build/bin/python -m pip install --quiet --no-cache-dir --require-hashes -r requirements/build.txt \
    && python -m venv /opt/wsproxy \
    && /opt/wsproxy/bin/python -m pip install --quiet --no-cache-dir --require-hashes -r requirements/run.txt
COPY pyproject.toml README.md* ./
COPY wsproxy wsproxy
RUN /build/bin/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/wsproxy/bin/python -m pip install --quiet --no-deps --no-index --find-links /wheels wsproxy \
    && /opt/wsproxy/bin/python -m compileall -q /opt/wsproxy/lib \
    && /opt/wsproxy/bin/python -m pip uninstall --yes --quiet pip

FROM python:${PYTHON_VERSION}-slim
LABEL org.opencontainers.image.title="wsproxy" \
      org.opencontainers.image.description="HTTP calls to the Responses API over one pooled WebSocket per session"
# Traces and nothing else are written, so the root file system may be read-only.
RUN mkdir -m 0700 /var/lib/wsproxy && chown 65532:65532 /var/lib/wsproxy
COPY --from=build /opt/wsproxy /opt/wsproxy
ENV PATH=/opt/wsproxy/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/nonexistent \
    XDG_STATE_HOME=/var/lib \
    WSPROXY_LISTEN=127.0.0.1:8787 \
    WSPROXY_LOG_FORMAT=json
VOLUME ["/var/lib/wsproxy"]
USER 65532:65532
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --retries=3 CMD ["wsproxy", "doctor", "--ready"]
ENTRYPOINT ["wsproxy"]
CMD ["serve"]
