# Untested: this image was never built or run, as neither Docker nor a GPU was at hand. Please report what fails.
#
#     docker build -t deradiff .
#     docker run --rm --gpus all -v "$PWD:/work" -v deradiff-cache:/cache deradiff sweep --dtype float16 ...
#
# torch's wheels for Linux bring their own CUDA libraries, so the host needs the NVIDIA driver and container toolkit only.
FROM python:3.11-slim

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/cache/huggingface \
    DERADIFF_CACHE=/cache/deradiff

WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
RUN pip install -c constraints.txt ".[optuna]" && rm -rf /src

RUN useradd --create-home deradiff && mkdir -p /cache /work && chown deradiff /cache /work
USER deradiff
WORKDIR /work
VOLUME /cache

ENTRYPOINT ["deradiff"]
CMD ["env"]
