# Built with buildah on Debian bookworm with Python 3.11 instead of the official base image, and run without a GPU:
# `deradiff env` and `deradiff demo`, under another user id. That image and GPUs are untested; please report what fails.
#
#     docker build -t deradiff .
#     docker run --rm --gpus all --user "$(id -u):$(id -g)" -v "$PWD:/work" -v deradiff-cache:/cache deradiff \
#         sweep --dtype float16 ...
#
# torch's wheels for Linux bring their own CUDA libraries, so the host needs the NVIDIA driver and container toolkit only.
FROM python:3.11-slim

# torch.compile builds kernels with a C compiler
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/cache \
    HF_HOME=/cache/huggingface \
    DERADIFF_CACHE=/cache/deradiff \
    TORCHINDUCTOR_CACHE_DIR=/cache/inductor \
    TRITON_CACHE_DIR=/cache/triton

WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
RUN pip install -c constraints.txt ".[optuna]"

# With --user the container runs as anybody, who must be able to write to the caches.
RUN useradd --no-create-home deradiff && mkdir -p /cache /work && chmod 1777 /cache && chown deradiff /work
USER deradiff
WORKDIR /work
VOLUME /cache

ENTRYPOINT ["deradiff"]
CMD ["env"]
