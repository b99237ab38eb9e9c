# The prover pod, and prover-proxy to copy into the pods of stock nodes. `make images` builds it; see scripts/images.sh for what
# lies in the context. Dynamic glibc: the CUDA driver of the node is loaded at run time, from where the container toolkit mounts
# it. No CUDA runtime inside.
FROM scratch
COPY rootfs/ /
COPY prover-pod prover-proxy /usr/local/bin/
LABEL org.opencontainers.image.title="prover-pod"
LABEL org.opencontainers.image.description="Takes Triton VM proof jobs over HTTP and returns verified proofs, made on GPUs or CPUs"
LABEL org.opencontainers.image.source="https://github.com/upgrader-fleet/upgrader-fleet"
LABEL org.opencontainers.image.licenses="Apache-2.0"
# What of the driver is mounted: CUDA, and NVML. Which GPUs is the device plugin's to say: with NVIDIA_VISIBLE_DEVICES=all in the
# image, a pod that asked for no GPU would see them all.
ENV PATH=/usr/local/bin NVIDIA_DRIVER_CAPABILITIES=compute,utility
# The root is read-only; /tmp is a volume. The driver keeps there what it compiles for a device that the build did not know.
ENV CUDA_CACHE_PATH=/tmp/cuda
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/prover-pod"]
CMD ["serve"]
