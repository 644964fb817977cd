# The device side of kdeploy for 64-bit Arm boards: NumPy, ONNX Runtime and the command line, no torch. README.md here
# says how it is built and run. It holds for any architecture that the base and the wheels have; boards are what it is for.

# Debian's own bookworm-20260918-slim, by the digest of its index over all architectures (docker-library/repo-info).
ARG BASE=docker.io/library/debian:bookworm-20260918-slim@sha256:3783cc01769c7b2b1b83a5c5ad96c815348e28ed7da68e2e3687004faa906251

FROM ${BASE} AS python
# A base that brings its own Python keeps it.
RUN command -v python3 > /dev/null \
    || { apt-get update \
        && apt-get install -y --no-install-recommends python3=3.11.* \
        && apt-get clean && rm -rf /var/lib/apt/lists/*; }

FROM python AS build
RUN python3 -c 'import ensurepip' \
    || { apt-get update \
        && apt-get install -y --no-install-recommends python3-venv=3.11.* \
        && apt-get clean && rm -rf /var/lib/apt/lists/*; }
COPY . /source/
WORKDIR /source
# Empty means pip's own ways. PIP_NO_INDEX=1 takes everything from docker/wheels, so that no network is needed.
ARG PIP_NO_INDEX=""
ARG PIP_INDEX_URL=""
# The tests of others go, and pip, which a finished image needs no more. Byte code stays: on a read-only root Python could
# not keep its own and would compile anew in every process, seconds on a board.
RUN python3 -m venv /opt/kdeploy \
    && /opt/kdeploy/bin/pip install --no-cache-dir --find-links docker/wheels -c constraints.txt . \
    && /opt/kdeploy/bin/pip uninstall -y pip setuptools \
    && find /opt/kdeploy/lib -type d -name tests -prune -exec rm -r {} +

FROM python
LABEL org.opencontainers.image.title="kdeploy, device side" \
      org.opencontainers.image.description="Runs and measures kdeploy's bundles on 64-bit Arm boards" \
      org.opencontainers.image.source="https://github.com/kdeploy/kdeploy" \
      org.opencontainers.image.licenses="Apache-2.0"
# 1000 is the first person on most boards, so that what is written into a mounted folder is theirs.
RUN useradd --uid 1000 --home-dir /tmp --no-create-home kdeploy \
    && install -d -o kdeploy -g kdeploy /workspace
COPY --from=build /opt/kdeploy /opt/kdeploy
# Nothing is written but under HOME, the temporary folder and the working folder: with --read-only, --tmpfs /tmp is enough.
ENV PATH=/opt/kdeploy/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1
USER 1000:1000
WORKDIR /workspace
HEALTHCHECK NONE
ENTRYPOINT ["kdeploy"]
CMD ["--help"]
