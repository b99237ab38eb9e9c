# The prover pod, and prover-proxy to copy into the pods of stock nodes. Dynamic glibc: the CUDA driver of the node is loaded at run
# time, from where the device plugin mounts it. No CUDA runtime inside.
# syntax=docker/dockerfile:1
ARG DEBIAN=bookworm
FROM debian:${DEBIAN}-slim
COPY --chmod=0755 prover-pod prover-proxy /usr/local/bin/
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/prover-pod"]
CMD ["serve"]
