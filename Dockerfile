# The images of ws-ingress, one target each. They hold one static program and a list of authorities: no shell, no libraries.
#
#   docker build --target controller --tag docker.io/ws-ingress/controller:0.1.0 .
#   docker build --target dataplane --tag docker.io/ws-ingress/dataplane:0.1.0 .
#
# compiles inside Docker. `make images` compiles with the machine's own cargo where it can, and hands the programs over
# with `--build-arg BINARIES=given` (target/images/programs).
ARG BINARIES=built

FROM docker.io/library/rust:1.95-bookworm AS source
WORKDIR /source
COPY . .

FROM source AS compile
RUN .ci/binaries /programs

FROM scratch AS programs-built
COPY --from=compile /programs /
FROM scratch AS programs-given
COPY target/images/programs /
FROM programs-${BINARIES} AS programs

# What both images hold beside their programs.
FROM scratch AS common
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=programs /ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
USER 65532:65532

FROM common AS controller
LABEL org.opencontainers.image.title="ws-ingress controller" \
      org.opencontainers.image.description="Compiles WebSocketRoutes and pushes the route table to the dataplane"
COPY --from=programs /ws-ingress-controller /ws-ingress-controller
EXPOSE 9443 9901
ENTRYPOINT ["/ws-ingress-controller"]

FROM common AS dataplane
LABEL org.opencontainers.image.title="ws-ingress dataplane" \
      org.opencontainers.image.description="Terminates wss and relays WebSockets to backends"
COPY --from=programs /ws-ingress-dataplane /ws-ingress-dataplane
EXPOSE 8443 8080 9901
ENTRYPOINT ["/ws-ingress-dataplane"]

# From here on for tests only: the backend, and the node's pause (kind brings its own).
# On top of the other, which has compiled most of what these need.
FROM compile AS compile-tests
RUN .ci/binaries /programs tests
FROM scratch AS test-programs-built
COPY --from=compile-tests /programs /
FROM scratch AS test-programs-given
COPY target/images/programs /
FROM test-programs-${BINARIES} AS test-programs

FROM scratch AS echo
COPY --from=test-programs /echo /slay /
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/echo"]
CMD ["--listen", "0.0.0.0:8080", "--close-on-sigterm", "3"]

FROM scratch AS pause
COPY --from=test-programs /pause /pause
USER 65532:65532
ENTRYPOINT ["/pause"]
