# syntax=docker/dockerfile:1
#
# The relay in an image of nothing but its binary, CA certificates and an unprivileged user.
#
#   docker build --build-arg VERSION=1.2.3 -t ncs-relay .

FROM --platform=$BUILDPLATFORM golang:1.26 AS build
# The image forbids other toolchains than its own. An image older than the toolchain of go.mod, which closes holes of
# net/http, would build with them and not say so.
ENV GOTOOLCHAIN=auto
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG VERSION=
ARG TARGETOS
ARG TARGETARCH
# Static: the final image has no C library. The tags leave out what would ask one for users and hosts.
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -buildvcs=false -tags netgo,osusergo -ldflags "-s -w -X main.version=$VERSION" -o /out/ncs-relay ./cmd/ncs-relay
# A new volume takes owner and mode from the directory that it is mounted over.
RUN mkdir -p /out/etc /out/data && chmod 0750 /out/data && \
    echo 'nonroot:x:65532:65532:nonroot:/:/sbin/nologin' > /out/etc/passwd && \
    echo 'nonroot:x:65532:' > /out/etc/group

FROM scratch
# For HTTP sinks and trace collectors behind TLS.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/etc/ /etc/
COPY --from=build /out/ncs-relay /ncs-relay
COPY --from=build --chown=65532:65532 /out/data /var/lib/ncs-relay

# Read by the example configurations: where the journal and the file sink's archive go. It is the only place that needs
# to be written; the root file system can be read-only.
ENV NCS_DATA_DIR=/var/lib/ncs-relay/journal NCS_ARCHIVE_DIR=/var/lib/ncs-relay/archive
VOLUME /var/lib/ncs-relay

USER 65532:65532
# The ingress. Metrics and probes are on 9464, inside the container only unless admin.listen says otherwise.
EXPOSE 8080 9464

# Asks /readyz on 127.0.0.1:9464; another admin.listen needs another --admin here. Unhealthy means that notifications
# cannot be stored at the moment, such as on a full disk, which a restart does not mend: alert, do not kill.
HEALTHCHECK --interval=15s --timeout=6s --start-period=30s CMD ["/ncs-relay", "health"]

# A shutdown takes at most shutdown.delay and shutdown.timeout; docker stop waits 10s unless told: docker stop -t 35.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/ncs-relay"]
CMD ["serve", "-c", "/etc/ncs-relay/relay.yaml"]
