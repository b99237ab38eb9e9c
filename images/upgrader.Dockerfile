# The stateless upgrader.
# syntax=docker/dockerfile:1
ARG DEBIAN=bookworm
FROM debian:${DEBIAN}-slim
COPY --chmod=0755 upgrader /usr/local/bin/upgrader
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/upgrader"]
