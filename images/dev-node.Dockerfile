# The dev node, for tests and demos: mock proofs, a wallet that pays itself. Not part of a release; `make e2e` builds it.
FROM scratch
COPY rootfs/ /
COPY dev-node /usr/local/bin/dev-node
LABEL org.opencontainers.image.title="dev-node"
LABEL org.opencontainers.image.description="A Neptune Cash node with mock proofs, for tests"
LABEL org.opencontainers.image.source="https://github.com/upgrader-fleet/upgrader-fleet"
LABEL org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/usr/local/bin
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/dev-node"]
