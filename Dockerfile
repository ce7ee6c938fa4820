# On a CPU:          docker build -t polyinr .
# On NVIDIA GPUs:    docker build -t polyinr-cuda --build-arg BASE=python:3.12 \
#                      --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 .
# Run:               docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/work" polyinr sample --seeds 0-7 -o images/
#                    docker run --rm --gpus all --shm-size 8g ... polyinr-cuda train cats.zip
# PyTorch's wheels hold CUDA, so the base needs none; Triton needs a C compiler, which python:3.12 has and -slim has not.
ARG BASE=python:3.12-slim
FROM ${BASE}
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=video,view,tensorboard
ENV HOME=/tmp MPLCONFIGDIR=/tmp/matplotlib PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /polyinr
COPY constraints.txt ./
RUN pip install -c constraints.txt torch torchvision --index-url "${TORCH_INDEX}"
COPY pyproject.toml README.md LICENSE ./
COPY polyinr_core polyinr_core
COPY polyinr_cli polyinr_cli
RUN pip install -c constraints.txt ".[${EXTRAS}]"
WORKDIR /work
ENTRYPOINT ["polyinr"]
CMD ["--help"]
