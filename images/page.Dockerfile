# Image of the dashboard's frontend, served by nginx on port 5173.
#   docker build -f images/page.Dockerfile -t nomnom-dashboard-frontend .
ARG NODE_IMAGE=node:22-slim
ARG NGINX_IMAGE=nginxinc/nginx-unprivileged:1.29-alpine

FROM ${NODE_IMAGE} AS build
WORKDIR /build
COPY services/dashboard/web/package.json services/dashboard/web/package-lock.json ./
RUN npm ci --no-audit --no-fund
COPY services/dashboard/web ./
RUN npm run build

FROM ${NGINX_IMAGE}
ARG VERSION=
ARG REVISION=
ARG SOURCE=
LABEL org.opencontainers.image.title="nomnom dashboard frontend" \
      org.opencontainers.image.description="Frontend of the nomnom dashboard" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY images/nginx.conf /etc/nginx/nginx.conf
COPY --from=build /build/dist /usr/share/nginx/html
USER 101:101
EXPOSE 5173
# Runs nginx directly: the base image's entry point is a shell script that writes to /etc.
ENTRYPOINT ["nginx", "-e", "/dev/stderr", "-g", "daemon off;"]
