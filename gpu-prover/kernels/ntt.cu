// Batched transforms of columns: the two passes of ntt.cuh in both directions.
//
// Tiles have 16 elements a thread. Grid: x = tiles of one column, y = columns (contiguous) or groups of columns (rows).
#include "ntt.cuh"

extern __shared__ u64 tile[];

// What is added to coefficient i < length of column y while it is loaded: factor * values[y * stride + i]. On a coset
// g <w_n> the trace randomizer (X^n - 1) r(X) is (g^n - 1) r_i, and coefficient n + i of a long polynomial is g^n.
struct Tail {
    const u64 *values;
    u64 stride;
    u64 length;
    u64 factor;
};

// Pass 1 of the forward transform. `source` may equal `target`. log_block = log2 C.
KERNEL __launch_bounds__(512) ntt_forward_contiguous(const u64 *source, u64 source_stride, u64 *target,
                                                     u64 target_stride, u32 log_n, u32 log_block, const u64 *twiddles,
                                                     Tail tail) {
    u32 elements = 16 * blockDim.x;
    u64 first = (u64)blockIdx.x * elements;
    const u64 *from = source + blockIdx.y * source_stride + first;
    u64 *to = target + blockIdx.y * target_stride + first;
#pragma unroll 4
    for (u32 e = threadIdx.x; e < elements; e += blockDim.x) {
        u64 value = from[e];
        u64 index = bit_reverse((u32)(first + e), log_n);
        if (index < tail.length)
            value = add(value, mul_canonical(tail.factor, tail.values[blockIdx.y * tail.stride + index]));
        tile[tile_index(e, 0, 0)] = value;
    }
    __syncthreads();
    ntt_tile_of<false>(log_block, tile, elements, 0, twiddles);
#pragma unroll 4
    for (u32 e = threadIdx.x; e < elements; e += blockDim.x) to[e] = tile[tile_index(e, 0, 0)];
}

// The factor of row r, lane c: power[r] * w^(c * reverse(r)).
__device__ __forceinline__ void row_factors(u64 factor[16], u64 c0, u32 log_rows, u32 log_width, const u64 *powers,
                                            const u64 *low, const u64 *high) {
#pragma unroll
    for (u32 i = 0; i < 16; i++) {
        u32 e = threadIdx.x + i * blockDim.x;
        u32 r = e >> log_width, c = e & ((1u << log_width) - 1);
        u64 rho = bit_reverse(r, log_rows);
        factor[i] = mul_canonical(powers[r], table_power(low, high, (c0 + c) * rho));
    }
}

// Pass 2 of the forward transform, in place; values come out canonical.
KERNEL __launch_bounds__(512) ntt_forward_rows(u64 *data, u64 stride, u32 columns, u32 columns_per_block, u32 log_n,
                                               u32 log_rows, u32 log_width, const u64 *twiddles, const u64 *powers,
                                               const u64 *low, const u64 *high) {
    u32 elements = 16 * blockDim.x, log_c = log_n - log_rows;
    u64 c0 = (u64)blockIdx.x << log_width;
    u64 factor[16];
    row_factors(factor, c0, log_rows, log_width, powers, low, high);
    u32 first = blockIdx.y * columns_per_block;
    u32 last = first + columns_per_block < columns ? first + columns_per_block : columns;
    for (u32 column = first; column < last; column++) {
        u64 *at = data + column * stride + c0;
#pragma unroll
        for (u32 i = 0; i < 16; i++) {
            u32 e = threadIdx.x + i * blockDim.x;
            u32 r = e >> log_width, c = e & ((1u << log_width) - 1);
            tile[tile_index(r, c, log_width)] = mul(at[((u64)r << log_c) + c], factor[i]);
        }
        __syncthreads();
        ntt_tile_of<false>(log_rows, tile, elements, log_width, twiddles);
#pragma unroll
        for (u32 i = 0; i < 16; i++) {
            u32 e = threadIdx.x + i * blockDim.x;
            u32 r = e >> log_width, c = e & ((1u << log_width) - 1);
            at[((u64)r << log_c) + c] = canonical(tile[tile_index(r, c, log_width)]);
        }
        __syncthreads();
    }
}

// Pass 1 of the inverse transform: rows. `source` may equal `target`. The powers carry 1/n.
KERNEL __launch_bounds__(512) ntt_inverse_rows(const u64 *source, u64 source_stride, u64 *target, u64 target_stride,
                                               u32 columns, u32 columns_per_block, u32 log_n, u32 log_rows,
                                               u32 log_width, const u64 *twiddles, const u64 *powers, const u64 *low,
                                               const u64 *high) {
    u32 elements = 16 * blockDim.x, log_c = log_n - log_rows;
    u64 c0 = (u64)blockIdx.x << log_width;
    u64 factor[16];
    row_factors(factor, c0, log_rows, log_width, powers, low, high);
    u32 first = blockIdx.y * columns_per_block;
    u32 last = first + columns_per_block < columns ? first + columns_per_block : columns;
    for (u32 column = first; column < last; column++) {
        const u64 *from = source + column * source_stride + c0;
        u64 *to = target + column * target_stride + c0;
#pragma unroll
        for (u32 i = 0; i < 16; i++) {
            u32 e = threadIdx.x + i * blockDim.x;
            u32 r = e >> log_width, c = e & ((1u << log_width) - 1);
            tile[tile_index(r, c, log_width)] = from[((u64)r << log_c) + c];
        }
        __syncthreads();
        ntt_tile_of<true>(log_rows, tile, elements, log_width, twiddles);
#pragma unroll
        for (u32 i = 0; i < 16; i++) {
            u32 e = threadIdx.x + i * blockDim.x;
            u32 r = e >> log_width, c = e & ((1u << log_width) - 1);
            to[((u64)r << log_c) + c] = mul(tile[tile_index(r, c, log_width)], factor[i]);
        }
        __syncthreads();
    }
}

// Pass 2 of the inverse transform: contiguous blocks, in place; coefficients come out canonical and bit-reversed.
KERNEL __launch_bounds__(512) ntt_inverse_contiguous(u64 *data, u64 stride, u32 log_block, const u64 *twiddles) {
    u32 elements = 16 * blockDim.x;
    u64 *at = data + blockIdx.y * stride + (u64)blockIdx.x * elements;
#pragma unroll 4
    for (u32 e = threadIdx.x; e < elements; e += blockDim.x) tile[tile_index(e, 0, 0)] = at[e];
    __syncthreads();
    ntt_tile_of<true>(log_block, tile, elements, 0, twiddles);
#pragma unroll 4
    for (u32 e = threadIdx.x; e < elements; e += blockDim.x) at[e] = canonical(tile[tile_index(e, 0, 0)]);
}
