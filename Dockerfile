# One binary in a small image: docker build -t frazil .
FROM rust:1.95-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends cmake pkg-config protobuf-compiler libprotobuf-dev libssl-dev libcurl4-openssl-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked && cp target/release/frazil /frazil

FROM debian:bookworm-slim
# curl for the health check, OpenSSL and libcurl for librdkafka.
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates curl libcurl4 libssl3 openssl zlib1g \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --home-dir /var/lib/frazil --create-home frazil \
 && install -d -o frazil /etc/frazil/tls
COPY --from=build /frazil /usr/local/bin/frazil
USER frazil
WORKDIR /var/lib/frazil
EXPOSE 8181
ENTRYPOINT ["frazil"]
CMD ["run", "-c", "/etc/frazil/frazil.yaml"]
