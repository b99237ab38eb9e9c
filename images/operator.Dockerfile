# The operator. Build from the repository: make images REGISTRY=...
# syntax=docker/dockerfile:1
ARG DEBIAN=bookworm
FROM debian:${DEBIAN}-slim
# Reproducible: nothing is installed, the binary is copied with a fixed time. It needs glibc and nothing else; certificates of
# the API server come with the ServiceAccount.
COPY --chmod=0755 operator /usr/local/bin/operator
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/operator"]
CMD ["run"]
