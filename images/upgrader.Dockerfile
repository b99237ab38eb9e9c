# The stateless upgrader. `make images` builds it; see scripts/images.sh for what lies in the context.
FROM scratch
COPY rootfs/ /
COPY upgrader /usr/local/bin/upgrader
LABEL org.opencontainers.image.title="upgrader"
LABEL org.opencontainers.image.description="Raises, merges and updates the transactions of a Neptune Cash mempool through prover pods"
LABEL org.opencontainers.image.source="https://github.com/upgrader-fleet/upgrader-fleet"
LABEL org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/usr/local/bin
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/upgrader"]
