// Number-theoretic transforms of 2^4 to 2^12 points inside one tile of fast memory; two of them make one of up to 2^24.
//
// ORDER: coefficients are kept bit-reversed, values natural. Decimation in time runs from the one to the other, its
// inverse (decimation in frequency) back, so there is no reversal pass, and rows lie in the domain's order, as hashing
// and the AIR's "next row" need them.
//
// TWO PASSES: n = R * C. A column of coefficients, bit-reversed, is R blocks of C; block r holds the coefficients whose
// index is rho = reverse(r) modulo R. With f(X) = sum over rho of X^rho f_rho(X^R):
//   1. "contiguous": each block becomes the values of f_rho on the coset g^R <w_C>: C-point transforms;
//   2. "rows": for each c, the values F_rho[c] times (g w_n^c)^rho, transformed over rho: R-point transforms whose
//      elements lie C apart. A tile takes a few neighbouring c, for whole memory sectors.
// The coset's offset costs nothing in pass 1: its powers are in the twiddles. In pass 2 it is part of the factor.
//
// A TILE is `rows << log_width` elements, row r, lane c at index (r + r/16) << log_width | c. The padding spreads the
// sixteen-element strides of the first phase over the banks. A phase does up to 4 butterfly levels in registers.
//
// TWIDDLES are heaps: entry h + i, i < h, is the factor of butterfly i of the level that joins halves of h.
#pragma once
#include "goldilocks.cuh"

FN u32 tile_index(u32 row, u32 lane, u32 log_width) { return ((row + (row >> 4)) << log_width) | lane; }

// Entries that a tile of `rows` rows needs.
FN u32 tile_length(u32 rows, u32 log_width) { return (rows + (rows >> 4)) << log_width; }

// Levels FIRST .. FIRST + LEVELS of transforms of 2^S rows: group `unit` of 2^LEVELS elements.
template <int FIRST, int LEVELS, bool INVERSE>
FN void ntt_group(u64 *tile, u32 unit, u32 log_width, const u64 *twiddles) {
    const u32 size = 1u << LEVELS;
    u32 lane = unit & ((1u << log_width) - 1), w = unit >> log_width;
    u32 low = w & ((1u << FIRST) - 1);
    u32 base = ((w >> FIRST) << (FIRST + LEVELS)) + low;
    u64 x[size];
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
    for (u32 j = 0; j < size; j++) x[j] = tile[tile_index(base + (j << FIRST), lane, log_width)];
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
    for (int step = 0; step < LEVELS; step++) {
        const u32 i = INVERSE ? LEVELS - 1 - step : step;
        const u32 half = 1u << (FIRST + i);
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
        for (u32 pair = 0; pair < size / 2; pair++) {
            const u32 k = pair & ((1u << i) - 1);
            const u32 j = ((pair >> i) << (i + 1)) + k;
            u64 factor = twiddles[half + low + (k << FIRST)];
            if (INVERSE) {
                u64 u = x[j], v = canonical(x[j + (1u << i)]);
                x[j] = add_lazy(u, v);
                x[j + (1u << i)] = mul(sub_lazy(u, v), factor);
            } else {
                u64 u = x[j], v = mul(x[j + (1u << i)], factor); // canonical: the factor is
                x[j] = add_lazy(u, v);
                x[j + (1u << i)] = sub_lazy(u, v);
            }
        }
    }
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
    for (u32 j = 0; j < size; j++) tile[tile_index(base + (j << FIRST), lane, log_width)] = x[j];
}

// How a transform of 2^S rows falls into phases of up to 4 levels, balanced.
template <int S> struct Phases {
    static const int count = (S + 3) / 4;
    static const int a = (S + count - 1) / count;
    static const int b = count > 1 ? (S - a + count - 2) / (count - 1) : 0;
    static const int c = count > 2 ? S - a - b : 0;
};

// Runs one phase for one thread; `units` groups are dealt out round robin.
template <int FIRST, int LEVELS, bool INVERSE>
FN void ntt_phase(u64 *tile, u32 elements, u32 log_width, const u64 *twiddles, u32 thread, u32 threads) {
    for (u32 unit = thread; unit < (elements >> LEVELS); unit += threads)
        ntt_group<FIRST, LEVELS, INVERSE>(tile, unit, log_width, twiddles);
}

// The transform of every 2^S-row block of the tile. `sync` is the barrier; the host runs all threads of a phase in turn.
#ifdef __CUDACC__
#define NTT_PHASE(first, levels)                                                                                       \
    ntt_phase<first, levels, INVERSE>(tile, elements, log_width, twiddles, threadIdx.x, blockDim.x);                   \
    __syncthreads()
#else
#define NTT_PHASE(first, levels)                                                                                       \
    for (u32 thread = 0; thread < 8; thread++)                                                                         \
    ntt_phase<first, levels, INVERSE>(tile, elements, log_width, twiddles, thread, 8)
#endif

template <int S, bool INVERSE> FN void ntt_tile(u64 *tile, u32 elements, u32 log_width, const u64 *twiddles) {
    typedef Phases<S> L;
    if (!INVERSE) {
        NTT_PHASE(0, L::a);
        if constexpr (L::count > 1) { NTT_PHASE(L::a, L::b); }
        if constexpr (L::count > 2) { NTT_PHASE(L::a + L::b, L::c); }
    } else {
        if constexpr (L::count > 2) { NTT_PHASE(L::a + L::b, L::c); }
        if constexpr (L::count > 1) { NTT_PHASE(L::a, L::b); }
        NTT_PHASE(0, L::a);
    }
}

template <bool INVERSE>
FN void ntt_tile_of(u32 log_rows, u64 *tile, u32 elements, u32 log_width, const u64 *twiddles) {
    switch (log_rows) {
    case 1: ntt_tile<1, INVERSE>(tile, elements, log_width, twiddles); break;
    case 2: ntt_tile<2, INVERSE>(tile, elements, log_width, twiddles); break;
    case 3: ntt_tile<3, INVERSE>(tile, elements, log_width, twiddles); break;
    case 4: ntt_tile<4, INVERSE>(tile, elements, log_width, twiddles); break;
    case 5: ntt_tile<5, INVERSE>(tile, elements, log_width, twiddles); break;
    case 6: ntt_tile<6, INVERSE>(tile, elements, log_width, twiddles); break;
    case 7: ntt_tile<7, INVERSE>(tile, elements, log_width, twiddles); break;
    case 8: ntt_tile<8, INVERSE>(tile, elements, log_width, twiddles); break;
    case 9: ntt_tile<9, INVERSE>(tile, elements, log_width, twiddles); break;
    case 10: ntt_tile<10, INVERSE>(tile, elements, log_width, twiddles); break;
    case 11: ntt_tile<11, INVERSE>(tile, elements, log_width, twiddles); break;
    case 12: ntt_tile<12, INVERSE>(tile, elements, log_width, twiddles); break;
    default: break;
    }
}

// w^e from two tables: low[i] = w^i for i < 2^12, high[i] = w^(i * 2^12). Canonical.
#define POWER_LOW_BITS 12
FN u64 table_power(const u64 *low, const u64 *high, u64 e) {
    return mul(low[e & ((1u << POWER_LOW_BITS) - 1)], high[e >> POWER_LOW_BITS]);
}
