# Two stages: the first installs, the second holds what runs. BASE has to bring Python 3.11 to 3.13; for the
# gpu variant also CUDA and cuDNN, as requirements/gpu.txt holds no drivers' libraries.
ARG BASE=python:3.13-slim-trixie

FROM ${BASE} AS build
# Which lock file is installed: service, tensorflow or gpu.
ARG LOCK=service
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
# Without a pip of its own: nothing can be installed into what runs.
RUN ["python", "-m", "venv", "--without-pip", "/opt/dunno"]
COPY requirements/ requirements/
# Lock files are complete: pip resolves nothing, and `check` says so.
RUN python -m pip --python /opt/dunno install --no-deps --require-hashes --only-binary :all: \
        --requirement "requirements/${LOCK}.txt" \
    && python -m pip --python /opt/dunno check
COPY pyproject.toml README.md LICENSE ./
COPY service/ service/
COPY training/ training/
RUN ["python", "-m", "pip", "--python", "/opt/dunno", "install", "--no-deps", "--no-build-isolation", "."]
# What the libraries bring and the service never reads: their tests, sources for compilers that are not
# here, tools that make models smaller or convert them, numpy's compiler of Fortran.
RUN find /opt/dunno -type d \( -name tests -o -path "*/onnxruntime/transformers" \
        -o -path "*/onnxruntime/quantization" -o -path "*/onnxruntime/tools" -o -path "*/numpy/f2py" \) \
        -prune -exec rm -r {} + \
    && find /opt/dunno -type f \( -name "*.a" -o -name "*.c" -o -name "*.cpp" -o -name "*.h" -o -name "*.pyx" \
        -o -name "*.pxd" \) -delete
# It has built what is ours; TensorFlow alone asks for it when it runs.
RUN if [ "${LOCK}" != tensorflow ]; then python -m pip --python /opt/dunno uninstall --yes setuptools; fi
COPY models/ /app/models/
# A checkout under a strict umask would not be readable for the user below.
RUN ["chmod", "-R", "a+rX,go-w", "/opt/dunno", "/app"]

FROM ${BASE}
COPY --from=build /opt/dunno /opt/dunno
COPY --from=build /app /app
# ONNX Runtime sends reports on its use to its makers otherwise; this server calls nobody.
ENV ORT_DISABLE_TELEMETRY=1
# Only here every address is listened on, and by whoever reaches it asked without a key: what reaches
# a container is for its network to say. With DUNNO_KEYS the latter has no effect.
ENV PATH="/opt/dunno/bin:${PATH}" \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    DUNNO_HOST=0.0.0.0 \
    DUNNO_PORT=8000 \
    DUNNO_ALLOW_ANONYMOUS=true \
    DUNNO_MODELS=/app/models
WORKDIR /app
USER 10001:10001
EXPOSE 8000
# The root may be read-only: no folder has to be writable.
# Asks the address that is served; 0.0.0.0 and :: are served at 127.0.0.1, with or without IPv6.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-I", "-S", "-c", "import http.client, os, sys; h = os.environ['DUNNO_HOST']; c = http.client.HTTPConnection(h if set(h) - set('0:.*') else '127.0.0.1', int(os.environ['DUNNO_PORT']), timeout=2); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]
ARG VERSION=0.1.0
ARG REVISION=unknown
ENV DUNNO_REVISION="${REVISION}"
LABEL org.opencontainers.image.title="Dunno" \
    org.opencontainers.image.description="A model server that knows when it does not know." \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
# SageMaker starts `IMAGE serve`; every other command of dunno can stand there as well.
ENTRYPOINT ["dunno"]
CMD ["serve"]
