# syntax=docker/dockerfile:1
# One of the four services: `docker build --build-arg SERVICE=store .`, or all of them by scripts/images.
#
#   build     compiles the four, once for all images
#   web       a service, that serves
#   release   the same, which brings its database's schema up to date: Heroku's release phase

FROM rust:1.91-slim-bookworm AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libpq-dev libssl-dev pkg-config \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked -p warranty -p warehouse -p order -p store \
    && mkdir /out \
    && cp target/release/warranty target/release/warehouse target/release/order target/release/store /out

FROM debian:12-slim AS web
# What the binaries are linked with, the authorities that vouch for others, and curl: with it, Heroku
# shows what its release phase says.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates curl libpq5 libssl3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin service
ARG SERVICE
COPY --from=build /out/${SERVICE:?} /service
USER 10001:10001
# In a container, whoever is on its network is outside. Without tokens a service refuses to.
ENV BIND=0.0.0.0
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s --retries=3 CMD ["/service", "health"]
CMD ["/service", "serve"]

FROM web AS release
CMD ["/service", "migrate"]

# The last one is what is built unless a target is named.
FROM web
