# A shell in which everything runs, or a server for others (its token is whatever you choose):
#
#     docker build -t cold_dif_model . && docker run --rm -ti cold_dif_model
#     docker run --rm -p 8000:8000 cold_dif_model python src serve --host 0.0.0.0 --token a-long-secret
#
# Build arguments, given as --build-arg NAME=VALUE:
#
#     DEVICE=gpu            keeps what only a GPU opens (2 GB); then docker run --gpus all
#     PIP_EXTRA_INDEX_URL   PyTorch's own index of wheels for a CPU or for another CUDA: the same versions are taken from
#                           there. PyPI's, the default, run on both and therefore carry CUDA's libraries to CPUs, too.
#     USER_ID=$(id -u)      the user inside gets your number: folders that you mount are theirs, what they write is yours
FROM python:3.13-slim

RUN apt-get update \
 && apt-get install --yes --no-install-recommends git less make nano-tiny \
 && rm -rf /var/lib/apt/lists/*

ARG USER_ID=1000
RUN useradd --create-home --shell /bin/bash --uid "$USER_ID" lab \
 && install --directory --owner=lab --group=lab /home/lab/cold_dif_model
USER lab
WORKDIR /home/lab/cold_dif_model
ENV PATH=/home/lab/cold_dif_model/.venv/bin:$PATH PIP_NO_CACHE_DIR=1

# Before the code, so that new code installs nothing again. On a CPU the wheel needs the libraries that torch is linked
# with to be there, but neither Triton nor what those libraries would open on a GPU; libcudnn_graph knows the version.
COPY --chown=lab:lab Makefile requirements.txt requirements-dev.txt ./
ARG DEVICE=cpu
ARG PIP_EXTRA_INDEX_URL
RUN case "$DEVICE" in cpu|gpu) ;; *) echo "DEVICE is cpu or gpu, not $DEVICE" >&2; exit 1 ;; esac \
 && make .venv/.requirements \
 && if [ "$DEVICE" = cpu ]; then \
      python -m pip uninstall --yes triton \
      && find .venv -path '*/nvidia/*' \( -name 'libcudnn_[!g]*' -o -name 'libcusolverMg*' \
           -o -name 'libnvperf*' -o -name '*.alt.so*' \) -delete; \
    fi \
 && python -c 'import torchvision'

# The touch: pip is done even where the layers above are older than this checkout's requirements. What is left of make is
# the package itself, by a link to src/. The folders: a volume mounted on one of them belongs to lab, and docker cp finds
# them.
COPY --chown=lab:lab . .
RUN touch .venv/.requirements \
 && make .venv/.installed \
 && mkdir -p Plots contents contents_custom contents_lap data runs \
 && if [ -d .git ]; then pre-commit install --install-hooks; fi

# Of the server alone: where a shell is what runs, there is nothing to ask.
EXPOSE 8000
HEALTHCHECK --start-period=60s --interval=10s --timeout=5s CMD case "$(cat /proc/1/comm)" in bash) ;; \
    *) python -c 'import urllib.request; urllib.request.urlopen("http://127.0.0.1:8000/health", timeout=4)' ;; esac

CMD ["bash"]
