# All of kdeploy, on a workstation: distils, exports, quantises, measures. README.md here says how it is built and run.

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
# cpu: PyTorch's builds without CUDA, from its own index. cuda: those of PyPI, which bring CUDA along, so that the base
# needs none; the driver comes from the host.
ARG DEVICE=cpu
# train is what a run needs; openvino, tensorrt, timm and others (pyproject.toml) can be had besides: train,openvino
ARG EXTRAS=train
# Empty means pip's own ways. PIP_NO_INDEX=1 takes everything from docker/wheels, so that no network is needed.
ARG PIP_NO_INDEX=""
ARG PIP_INDEX_URL=""
ARG PIP_EXTRA_INDEX_URL=""
RUN case "$DEVICE" in \
        cpu) export PIP_EXTRA_INDEX_URL="${PIP_EXTRA_INDEX_URL:-https://download.pytorch.org/whl/cpu}" ;; \
        cuda) ;; \
        *) echo "DEVICE is cpu or cuda, not '$DEVICE'" >&2; exit 1 ;; \
    esac \
    && python3 -m venv /opt/kdeploy \
    && /opt/kdeploy/bin/pip install --no-cache-dir --find-links docker/wheels -c constraints.txt ".[$EXTRAS]"

FROM python
LABEL org.opencontainers.image.title="kdeploy" \
      org.opencontainers.image.description="From a teacher's checkpoint to a measured engine on a small device" \
      org.opencontainers.image.source="https://github.com/kdeploy/kdeploy" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --uid 1000 --home-dir /tmp --no-create-home kdeploy \
    && install -d -o kdeploy -g kdeploy /workspace
COPY --from=build /opt/kdeploy /opt/kdeploy
# Runs lie in /workspace/runs and what can be made again in /workspace/.cache: one volume keeps both.
# The NVIDIA variables ask its container toolkit for the GPUs; without one they do nothing.
ENV PATH=/opt/kdeploy/bin:$PATH \
    HOME=/tmp \
    XDG_CACHE_HOME=/workspace/.cache \
    PYTHONDONTWRITEBYTECODE=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000:1000
WORKDIR /workspace
HEALTHCHECK NONE
ENTRYPOINT ["kdeploy"]
CMD ["--help"]
