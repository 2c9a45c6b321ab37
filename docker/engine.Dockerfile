# The image that a Ray cluster runs: Ray, torch, softcask with its S3 drivers.
# Build from the root of the repository: docker build -f docker/engine.Dockerfile -t softcask-engine .
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS wheel
# The whole tree: softcask/ reaches pipeline/, jobs/ and storage_schemas/ by relative links.
COPY . /src
RUN pip install --no-cache-dir --constraint /src/docker/pins.txt setuptools \
    && pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheel /src

FROM ${BASE_IMAGE}
# A further index, with torch builds for this machine (a CUDA version, or CPU only): its 2.13.0+cpu goes before a
# plain 2.13.0. Empty: pip's own configuration decides.
ARG TORCH_INDEX_URL=""
# Which of softcask's extras go in, with their commas: those of other teachers and sources too.
ARG EXTRAS="engine,s3"
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1
# torch on its own: a layer of gigabytes that outlives every change of softcask.
RUN --mount=type=bind,from=wheel,source=/src/docker/pins.txt,target=/pins.txt \
    pip install --no-cache-dir --constraint /pins.txt \
    ${TORCH_INDEX_URL:+--extra-index-url "${TORCH_INDEX_URL}"} torch
RUN --mount=type=bind,from=wheel,source=/src/docker/pins.txt,target=/pins.txt \
    --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    pip install --no-cache-dir --constraint /pins.txt "$(echo /wheel/*.whl)[${EXTRAS}]" \
    && useradd --create-home --uid 1000 softcask \
    && install --directory --owner 1000 --group 1000 /store
USER 1000:1000
WORKDIR /home/softcask
CMD ["softcask", "--help"]
