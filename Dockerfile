# Every role of Postledger; which one is the word after the image: `docker run postledger http`.
FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1
WORKDIR /app

COPY .ci/requirements-uv.lock requirements.lock ./
RUN pip install --no-cache-dir --require-hashes --requirement requirements-uv.lock \
    && uv pip install --system --no-cache --require-hashes --compile-bytecode --requirement requirements.lock \
    && rm requirements-uv.lock

COPY main.py ./
COPY domain domain
COPY schemas schemas
COPY handlers handlers
COPY projections projections
COPY gateways gateways
RUN python -m compileall -q .

# An empty volume takes its owner over from the folder it is mounted on.
RUN useradd --uid 10001 --create-home postledger \
    && install --directory --owner=postledger --group=postledger --mode=0700 /keyset /blobs
USER postledger

ENTRYPOINT ["python", "main.py"]
CMD ["--help"]
