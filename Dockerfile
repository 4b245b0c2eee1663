# syntax=docker/dockerfile:1

# Builder and runtime are of one Debian: the binary is linked to its C library.
FROM rust:1.95-slim-trixie AS builder
WORKDIR /source
COPY Cargo.toml Cargo.lock ./
COPY entity entity
COPY migration migration
# What the binary embeds.
COPY assets assets
COPY config config
COPY src src
# What was built before is kept in the caches, which are no part of the image: hence the copy.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/source/target \
    cargo build --release --locked --bin windfall && cp target/release/windfall /usr/local/bin/windfall

FROM debian:trixie-slim
# Certificates for `auth.jwks` by https. All else is in the binary: SQLite, TLS, time zones.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --home-dir /var/lib/windfall --create-home --shell /usr/sbin/nologin windfall
COPY --from=builder /usr/local/bin/windfall /usr/local/bin/windfall
# As a number: who forbids root can tell that this is not it.
USER 10001:10001
WORKDIR /var/lib/windfall
# Reached from outside of the container; without PostgreSQL, an SQLite database in the working directory (mount a volume there).
ENV WINDFALL__HTTP__LISTEN=0.0.0.0:8080 \
    WINDFALL__DATABASE__URL=sqlite:///var/lib/windfall/windfall.db
EXPOSE 8080
# Whether the process lives, not whether its database does: restarting helps the one only. By bash, since the image has no curl.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8080 && printf 'GET /healthz HTTP/1.0\\r\\n\\r\\n' >&3 && read -r _ status _ <&3 && [[ $status == 200 ]]"]
ENTRYPOINT ["windfall"]
CMD ["serve"]
