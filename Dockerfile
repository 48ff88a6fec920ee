# `gradwatch serve`, and TensorBoard beside it: no Keras, no TensorFlow, no root.
# The stage `demo` is a trainer, with both.
FROM python:3.13.16-slim-bookworm AS source
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY .ci/constraints.txt ./
COPY gradwatch gradwatch

FROM source AS serve-build
RUN python -m venv /venv
RUN /venv/bin/pip install --no-cache-dir -c constraints.txt ".[serve]"

FROM source AS demo-build
RUN python -m venv /venv
RUN /venv/bin/pip install --no-cache-dir -c constraints.txt ".[tensorflow,demo]"

FROM python:3.13.16-slim-bookworm AS base
ENV PATH=/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp
# A new named volume takes its owner from the folder that it is mounted over.
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin gradwatch \
    && install -d -o 10001 -g 10001 /runs /runs/own /runs/demo
USER 10001:10001
WORKDIR /runs

FROM base AS demo
COPY --from=demo-build /venv /venv
ENTRYPOINT ["gradwatch"]
CMD ["demo", "--logdir", "/runs"]

FROM base AS serve
COPY --from=serve-build /venv /venv
EXPOSE 9753
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 9753, timeout=4); c.request('GET', '/-/healthy'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["gradwatch"]
# All interfaces of the container: what is published, and where, is not its affair.
CMD ["serve", "--logdir", "/runs", "--host", "0.0.0.0"]
