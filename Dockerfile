# The images of Souk. `docker build .` makes the one of every role and command: `docker run IMAGE order` is a role. The target `laptop`
# adds what stands in for others on one machine: the simulator of the payment provider, and the jobs that make secrets and the test
# purchase.
#
# The base has the C library, OpenSSL (for librdkafka), certificate authorities, time zones and an account 65532, and neither a shell
# nor a package manager. OpenSSL is the base's and not part of the program, so that its fixes need no more than a new base.
ARG RUST=rust
ARG RUNTIME=runtime

# Named here, and not in an ARG, so that Dependabot finds them.
FROM rust:1.95.0-bookworm AS rust
FROM gcr.io/distroless/cc-debian12:nonroot AS runtime

FROM ${RUST} AS tools
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    cargo install --quiet --locked cargo-chef@0.1.78 cargo-cyclonedx@0.5.9
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends libprotobuf-dev protobuf-compiler \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src

# What the dependencies are: the same text until a Cargo.toml or Cargo.lock changes.
FROM tools AS plan
COPY . .
RUN cargo chef prepare --recipe-path /recipe.json

FROM tools AS build
# The base has no zlib. Paths of the build and ids of the linker stay out of programs, so that two builds of one commit are equal.
ENV CARGO_PROFILE_RELEASE_STRIP=symbols \
    LIBZ_SYS_STATIC=1 \
    RUSTFLAGS="--remap-path-prefix=/usr/local/cargo/registry/src=/registry --remap-path-prefix=/src=/souk -Clink-arg=-Wl,--build-id=none"
COPY --from=plan /recipe.json /recipe.json
# This layer has all dependencies, compiled. It is made again only if the plan changes.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    cargo chef cook --release --locked --recipe-path /recipe.json -p souk -p provider -p stack
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    cargo build --release --locked -p souk -p provider -p stack
# The time of every file in the images, and in the list of components.
ARG SOURCE_DATE_EPOCH=0
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    cargo cyclonedx --quiet --format json --spec-version 1.5 --no-build-deps --manifest-path services/souk/Cargo.toml \
    && install -D -t /souk/usr/local/bin target/release/souk \
    && install -D -m 644 -t /souk/usr/share/doc/souk LICENSE services/souk/souk.cdx.json \
    && install -D -t /laptop/usr/local/bin target/release/provider target/release/stack \
    && install -d -o 65532 -g 65532 /laptop/authority /laptop/data /laptop/edge /laptop/secrets \
    && find /souk /laptop -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +

FROM ${RUNTIME} AS souk
ARG VERSION=dev
ARG REVISION=unknown
ARG SOURCE
LABEL org.opencontainers.image.title="Souk" \
      org.opencontainers.image.description="A commerce backend: every role and command" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"
COPY --from=build /souk /
USER 65532:65532
ENTRYPOINT ["souk"]
# Of the role that the container runs.
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s CMD ["souk", "health"]

FROM souk AS laptop
COPY --from=build /laptop /
ENTRYPOINT []
HEALTHCHECK NONE

FROM souk
