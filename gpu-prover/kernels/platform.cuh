// What lets one source compile as device code and, for tests without a GPU, as host C++.
//
// A function marked FN is plain arithmetic on its arguments. The PTX forms of the arithmetic stand behind
// `#ifdef __CUDA_ARCH__`, each beside a C form that says the same in 128-bit integers; the host tests hold the C forms,
// and all that is built on them, against twenty-first and triton-vm; the device tests hold the PTX forms.
#pragma once

typedef unsigned long long u64;
typedef unsigned int u32;
typedef unsigned char u8;

#ifdef __CUDACC__
#define FN __device__ __forceinline__
#define MEMBER __device__ __forceinline__
// One body, called from many places: generated kernels would not fit the instruction cache otherwise.
#define FN_CALL __device__ __noinline__
#define KERNEL extern "C" __global__ void
#else
#define FN static inline
#define MEMBER inline
#define FN_CALL static
typedef unsigned __int128 u128;
#endif

#if !defined(__CUDA_ARCH__) && defined(__CUDACC__)
typedef unsigned __int128 u128;
#endif

FN u32 lo32(u64 x) { return (u32)x; }
FN u32 hi32(u64 x) { return (u32)(x >> 32); }
FN u64 u64_of(u32 lo, u32 hi) { return ((u64)hi << 32) | lo; }

// The index whose low `bits` bits are those of `x` in reverse order; `x` < 2^bits, 1 <= bits <= 32.
FN u32 bit_reverse(u32 x, u32 bits) {
#ifdef __CUDA_ARCH__
    return __brev(x) >> (32 - bits);
#else
    u32 r = 0;
    for (u32 i = 0; i < bits; i++) r |= ((x >> i) & 1u) << (bits - 1 - i);
    return r;
#endif
}
