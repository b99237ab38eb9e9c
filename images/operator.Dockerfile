# The operator. `make images` builds it; see scripts/images.sh for what lies in the context.
FROM scratch
# glibc, certificate authorities and the names of users, nothing else: no shell, no package manager.
COPY rootfs/ /
COPY operator /usr/local/bin/operator
LABEL org.opencontainers.image.title="operator"
LABEL org.opencontainers.image.description="Turns UpgraderFleet resources into upgrader and prover pods"
LABEL org.opencontainers.image.source="https://github.com/upgrader-fleet/upgrader-fleet"
LABEL org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/usr/local/bin
# By number: the kubelet's runAsNonRoot cannot look names up.
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/operator"]
CMD ["run"]
