# syntax=docker/dockerfile:1

# The builder and the runtime use the same Debian release, because the binary is linked to its C library.
FROM rust:1.95-slim-trixie AS builder
# What the Kafka client is built with.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libssl-dev make pkg-config \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY Cargo.toml Cargo.lock ./
COPY benches benches
COPY entity entity
COPY migration migration
# The binary embeds these files.
COPY asyncapi.json ./
COPY assets assets
COPY config config
COPY src src
# Earlier builds stay in the caches. The caches are not part of the image, so the binary is copied out of them.
# The profile `dist` optimises across all crates. The build takes longer.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/source/target \
    cargo build --profile dist --locked --features kafka --bin windfall && cp target/dist/windfall /usr/local/bin/windfall

FROM debian:trixie-slim
# The certificates are for `auth.jwks` with an https URL, and OpenSSL for the Kafka client. Everything else is in the binary: SQLite, the
# other TLS, and time zones.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates libssl3t64 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --home-dir /var/lib/windfall --create-home --shell /usr/sbin/nologin windfall
COPY --from=builder /usr/local/bin/windfall /usr/local/bin/windfall
# A number, so that Kubernetes can verify that the container does not run as root.
USER 10001:10001
WORKDIR /var/lib/windfall
# The server listens on all addresses of the container. Without PostgreSQL, it uses an SQLite database in the working directory;
# mount a volume there.
ENV WINDFALL__HTTP__LISTEN=0.0.0.0:8080 \
    WINDFALL__DATABASE__URL=sqlite:///var/lib/windfall/windfall.db
EXPOSE 8080
# This checks the process, not its database, because a restart helps only the process. It uses bash, because the image has no curl.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8080 && printf 'GET /healthz HTTP/1.0\\r\\n\\r\\n' >&3 && read -r _ status _ <&3 && [[ $status == 200 ]]"]
ENTRYPOINT ["windfall"]
CMD ["serve"]
