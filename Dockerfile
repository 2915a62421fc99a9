# syntax=docker/dockerfile:1
# Two stages: the first compiles, the second holds the program and the six libraries it links.
#
#   ./start --models                                            # models/ on this machine, mounted below
#   docker build -t couplet .
#   docker run --rm -v couplet-data:/data couplet keys add me   # prints the key; 0.0.0.0 is refused without one
#   docker run -p 127.0.0.1:8080:8080 -v "$PWD/models:/models:ro" -v couplet-data:/data couplet

FROM debian:bookworm-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends \
        brotli ca-certificates gcc libc6-dev meson ninja-build pkg-config python3-pip libmicrohttpd-dev libuv1-dev libjansson-dev libsqlite3-dev libopenblas-dev libcurl4-openssl-dev zopfli \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN meson setup build --buildtype=release && ninja -C build server/couplet

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends \
        libmicrohttpd12 libuv1 libjansson4 libsqlite3-0 libopenblas0-pthread libcurl4 ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin couplet \
    && install -d -o couplet -g couplet /data
COPY --from=build /src/build/server/couplet /usr/local/bin/couplet
USER couplet
WORKDIR /data
ENV COUPLET_HOST=0.0.0.0 COUPLET_PORT=8080 COUPLET_DATA_DIR=/data
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8080 && printf 'GET /readyz HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && read -r _ status _ <&3 && [ \"$status\" = 200 ]"]
ENTRYPOINT ["couplet"]
CMD ["serve", "--model", "SmolLM2-135M-Instruct=/models/SmolLM2-135M-Instruct.Q4_1.gguf"]
