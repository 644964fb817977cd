# The device side of kdeploy for a Jetson with JetPack 6, with the TensorRT, CUDA and Python of NVIDIA's own image.

# JetPack 6.1 and 6.2: TensorRT 10.3, CUDA 12.6, Ubuntu 22.04 with Python 3.10. Pinned by its exact tag, for want of a
# published digest. A plan is bound to TensorRT's version, and the image's must fit the board's JetPack: name another tag as
# BASE for another one.
ARG BASE=nvcr.io/nvidia/l4t-tensorrt:r10.3.0-runtime

FROM ${BASE} AS build
# For `python3 -m venv`.
RUN python3 -c 'import ensurepip' \
    || { apt-get update \
        && apt-get install -y --no-install-recommends python3-venv=3.10.* \
        && apt-get clean && rm -rf /var/lib/apt/lists/*; }
COPY . /source/
WORKDIR /source
# Empty means pip's own ways. PIP_NO_INDEX=1 takes everything from docker/wheels, so that no network is needed.
ARG PIP_NO_INDEX=""
ARG PIP_INDEX_URL=""
# The environment sees the image's own tensorrt, which PyPI has for no Jetson. It is looked for and not imported: some of
# its libraries (DLA's) come from the board when the container starts. cuda-python is that of CUDA 12. Without
# constraints.txt: the tested set is for Python 3.11, and here pip takes the last releases for 3.10.
RUN python3 -m venv --system-site-packages /opt/kdeploy \
    && /opt/kdeploy/bin/python3 -c 'import importlib.util, sys; importlib.util.find_spec("tensorrt") or sys.exit("BASE has no tensorrt")' \
    && /opt/kdeploy/bin/pip install --no-cache-dir --find-links docker/wheels . 'cuda-python>=12.8,<13'

FROM ${BASE}
LABEL org.opencontainers.image.title="kdeploy, device side for Jetson" \
      org.opencontainers.image.description="Builds, runs and measures kdeploy's TensorRT engines on a Jetson with JetPack 6" \
      org.opencontainers.image.source="https://github.com/kdeploy/kdeploy" \
      org.opencontainers.image.licenses="Apache-2.0"
# The GPU's device files belong to the group video.
RUN useradd --uid 1000 --home-dir /tmp --no-create-home --groups video kdeploy \
    && install -d -o kdeploy -g kdeploy /workspace
COPY --from=build /opt/kdeploy /opt/kdeploy
# Nothing is written but under HOME, the temporary folder and the working folder: with --read-only, --tmpfs /tmp is enough.
ENV PATH=/opt/kdeploy/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1
USER 1000
WORKDIR /workspace
HEALTHCHECK NONE
ENTRYPOINT ["kdeploy"]
CMD ["--help"]
