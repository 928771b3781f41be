# Two images from one file: the service (the last stage, no torch) and, with --target train, the
# trainer. EXTRA=gpu builds the service on the CUDA build of ONNX Runtime.
ARG PYTHON_VERSION=3.13

FROM python:${PYTHON_VERSION}-slim AS compiled
# pip reads these from its environment.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
WORKDIR /src
COPY pyproject.toml constraints.txt requirements-serve.lock LICENSE README.md cli.py ./
COPY features/ features/
COPY model/ model/
COPY export/ export/
COPY service/ service/
# The compiled passes of all folders; the compiler stays in this stage. A base image without Python's
# headers gets a warning here, and both images do without the passes.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && python -m pip install --no-cache-dir "setuptools>=77" \
    && python -c 'import setuptools; setuptools.setup()' build_ext --inplace \
    && rm -rf build /var/lib/apt/lists/*

FROM compiled AS dependencies
ARG EXTRA=serve
# The serve set is pinned by hash. The gpu set holds other wheels: versions alone pin it.
RUN python -m venv --without-pip /venv \
    && if [ "$EXTRA" = serve ]; then \
         python -m pip --python /venv/bin/python install --no-cache-dir --no-compile \
           --require-hashes -r requirements-serve.lock; \
       else \
         python -m pip --python /venv/bin/python install --no-cache-dir --no-compile \
           -c constraints.txt ".[$EXTRA]" \
         && python -m pip --python /venv/bin/python uninstall -y deepfm-service; \
       fi

FROM python:${PYTHON_VERSION}-slim AS train
# An index that holds torch's CPU wheels leaves the CUDA ones out.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
WORKDIR /app
COPY --from=compiled /src ./
# There is no compiler here: what was compiled stays in its place, and pip says that it built none.
RUN python -m venv --without-pip /venv \
    && python -m pip --python /venv/bin/python install --no-cache-dir \
         -c constraints.txt -e ".[train,serve]" \
    && install -d -o 10001 -g 10001 /bundles
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /bundles
ENTRYPOINT ["deepfm"]
CMD ["--help"]

FROM python:${PYTHON_VERSION}-slim AS serve
COPY --from=dependencies /venv /venv
WORKDIR /app
COPY cli.py ./
COPY --from=dependencies /src/features/ features/
COPY --from=dependencies /src/service/ service/
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# Any numeric user will do: nothing is written outside the sockets.
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ.get(\"DEEPFM_PORT\", \"8000\")}/readyz', timeout=2)"]
ENTRYPOINT ["python", "cli.py"]
CMD ["serve", "/bundles/demo", "--host", "0.0.0.0"]
