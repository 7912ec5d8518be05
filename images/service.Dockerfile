# Image of one service; SERVICE is api, worker, dashboard or housekeeper.
#   docker build -f images/service.Dockerfile --build-arg SERVICE=api -t nomnom-ingestion-api .
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
ARG SERVICE
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build
# pip is not needed at run time.
RUN python -m venv --without-pip /opt/nomnom
# Dependencies change less often than the service, so they get their own layer.
COPY pyproject.toml constraints.txt ./
RUN python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; print(*p['dependencies'], *p['optional-dependencies']['${SERVICE}'], sep='\n')" > wanted.txt \
 && python -m pip --python /opt/nomnom/bin/python install -r wanted.txt -c constraints.txt
COPY README.md LICENSE hatch_build.py ./
COPY helm/nomnom/files/schemas schemas
COPY core core
COPY services/${SERVICE}/nomnom_${SERVICE} services/${SERVICE}/nomnom_${SERVICE}
RUN NOMNOM_PAGE=skip python -m pip --python /opt/nomnom/bin/python install --no-deps . \
 && cp "/opt/nomnom/bin/nomnom-${SERVICE}" /opt/nomnom/bin/serve \
 # Sources and headers that packages ship for compilation are not needed at run time.
 && find /opt/nomnom \( -name '*.c' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.h' \) -delete \
 && find /opt/nomnom -type d -name tests -path '*/site-packages/*' -prune -exec rm -r {} + \
 && rm -f /opt/nomnom/bin/nomnom /opt/nomnom/bin/nomnom-tui /opt/nomnom/bin/Activate.ps1 /opt/nomnom/bin/activate*

FROM ${PYTHON_IMAGE}
ARG SERVICE
ARG VERSION=
ARG REVISION=
ARG SOURCE=
LABEL org.opencontainers.image.title="nomnom ${SERVICE}" \
      org.opencontainers.image.description="The ${SERVICE} of nomnom, which accepts pipe-delimited records over HTTP, stores them in NATS JetStream and writes them to PostgreSQL" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/nomnom /opt/nomnom
ENV PATH=/opt/nomnom/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp
USER 10001:10001
WORKDIR /tmp
EXPOSE 8080 8081 3000
ENTRYPOINT ["/opt/nomnom/bin/serve"]
