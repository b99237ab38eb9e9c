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
// ENDS: the first phase takes its elements, and the last one puts them, where the caller says: `In::get` and `Out::put` of
// (turn, row, lane). So a pass makes no trip through the tile for that alone. `turn` is which of its groups a thread is at.
//
// TWIDDLES are heaps: entry h + i, i < h, is the factor of butterfly i of the level that joins halves of h. A heap of
// `LaneTwiddles` has entries for each lane, for a coset that differs from lane to lane.
#pragma once
#include "goldilocks.cuh"

FN u32 tile_index(u32 row, u32 lane, u32 log_width) { return ((row + (row >> 4)) << log_width) | lane; }

// Entries that a tile of `rows` rows needs.
FN u32 tile_length(u32 rows, u32 log_width) { return (rows + (rows >> 4)) << log_width; }

struct Tile {
    u64 *at;
    u32 log_width;
    MEMBER u64 get(u32, u32 row, u32 lane) const { return at[tile_index(row, lane, log_width)]; }
    MEMBER void put(u32, u32 row, u32 lane, u64 value) const { at[tile_index(row, lane, log_width)] = value; }
};

struct Twiddles {
    const u64 *heap;
    MEMBER u64 get(u32 entry, u32) const { return heap[entry]; }
};

struct LaneTwiddles {
    const u64 *heap;
    u32 log_width;
    MEMBER u64 get(u32 entry, u32 lane) const { return heap[(entry << log_width) | lane]; }
};

// Who takes part, and the tile between the phases.
struct Team {
    u32 thread, threads, elements, log_width;
};

// Levels FIRST .. FIRST + LEVELS of the transforms: group `unit` of 2^LEVELS elements.
template <int FIRST, int LEVELS, bool INVERSE, class In, class Out, class Factors>
FN void ntt_group(const In &in, const Out &out, const Factors &twiddles, u32 turn, u32 unit, u32 log_width) {
    const u32 size = 1u << LEVELS;
    u32 lane = unit & ((1u << log_width) - 1), w = unit >> log_width;
    u32 low = w & ((1u << FIRST) - 1);
    u32 base = ((w >> FIRST) << (FIRST + LEVELS)) + low;
    u64 x[size];
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
    for (u32 j = 0; j < size; j++) x[j] = in.get(turn, base + (j << FIRST), lane);
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
            u64 factor = twiddles.get(half + low + (k << FIRST), lane);
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
    for (u32 j = 0; j < size; j++) out.put(turn, base + (j << FIRST), lane, x[j]);
}

// How a transform of 2^S rows falls into phases of up to 4 levels, balanced.
template <int S> struct Phases {
    static const int count = (S + 3) / 4;
    static const int a = (S + count - 1) / count;
    static const int b = count > 1 ? (S - a + count - 2) / (count - 1) : 0;
    static const int c = count > 2 ? S - a - b : 0;
    static const u32 turns = 16 >> a; // groups of the phase at the ends, for 16 elements a thread
};

// One thread's part of a phase; groups are dealt out round robin.
template <int FIRST, int LEVELS, bool INVERSE, class In, class Out, class Factors>
FN void ntt_phase(const In &in, const Out &out, const Factors &twiddles, Team team) {
#ifdef __CUDA_ARCH__ // always 16 elements a thread
#pragma unroll
    for (u32 turn = 0; turn < 16u >> LEVELS; turn++)
        ntt_group<FIRST, LEVELS, INVERSE>(in, out, twiddles, turn, team.thread + turn * team.threads, team.log_width);
#else
    u32 turn = 0;
    for (u32 unit = team.thread; unit < team.elements >> LEVELS; unit += team.threads)
        ntt_group<FIRST, LEVELS, INVERSE>(in, out, twiddles, turn++, unit, team.log_width);
#endif
}

// The barrier is between phases; the host runs all threads of a phase in turn.
#ifdef __CUDA_ARCH__
#define NTT_PHASE(first, levels, in, out, twiddles) ntt_phase<first, levels, INVERSE>(in, out, twiddles, team)
#define NTT_BARRIER __syncthreads()
#else
#define NTT_PHASE(first, levels, in, out, twiddles)                                                                    \
    for (team.thread = 0; team.thread < team.threads; team.thread++)                                                   \
    ntt_phase<first, levels, INVERSE>(in, out, twiddles, team)
#define NTT_BARRIER
#endif

// The transform of every 2^S rows, from `in` to `out` by way of the tile, which is free when all threads have come out of
// here. `outer` are the twiddles of the phase of the lowest levels: the first one, of inverses the last one.
template <int S, bool INVERSE, class In, class Out, class Factors>
FN void ntt_transform(const In &in, const Out &out, Tile tile, const Factors &outer, const Twiddles &inner, Team team) {
    typedef Phases<S> L;
    if constexpr (L::count == 1) {
        NTT_PHASE(0, L::a, in, out, outer);
    } else if constexpr (L::count == 2 && !INVERSE) {
        NTT_PHASE(0, L::a, in, tile, outer);
        NTT_BARRIER;
        NTT_PHASE(L::a, L::b, tile, out, inner);
    } else if constexpr (L::count == 2) {
        NTT_PHASE(L::a, L::b, in, tile, inner);
        NTT_BARRIER;
        NTT_PHASE(0, L::a, tile, out, outer);
    } else if constexpr (!INVERSE) {
        NTT_PHASE(0, L::a, in, tile, outer);
        NTT_BARRIER;
        NTT_PHASE(L::a, L::b, tile, tile, inner);
        NTT_BARRIER;
        NTT_PHASE(L::a + L::b, L::c, tile, out, inner);
    } else {
        NTT_PHASE(L::a + L::b, L::c, in, tile, inner);
        NTT_BARRIER;
        NTT_PHASE(L::a, L::b, tile, tile, inner);
        NTT_BARRIER;
        NTT_PHASE(0, L::a, tile, out, outer);
    }
}

// Calls `body<S>(arguments)` with S = log_rows, from 1 to 12.
#define NTT_CASE(S, body, ...)                                                                                         \
    case S: body<S>(__VA_ARGS__); break;
#define NTT_DISPATCH(log_rows, body, ...)                                                                              \
    switch (log_rows) {                                                                                                \
        NTT_CASE(1, body, __VA_ARGS__)                                                                                 \
        NTT_CASE(2, body, __VA_ARGS__)                                                                                 \
        NTT_CASE(3, body, __VA_ARGS__)                                                                                 \
        NTT_CASE(4, body, __VA_ARGS__)                                                                                 \
        NTT_CASE(5, body, __VA_ARGS__)                                                                                 \
        NTT_CASE(6, body, __VA_ARGS__)                                                                                 \
        NTT_CASE(7, body, __VA_ARGS__)                                                                                 \
        NTT_CASE(8, body, __VA_ARGS__)                                                                                 \
        NTT_CASE(9, body, __VA_ARGS__)                                                                                 \
        NTT_CASE(10, body, __VA_ARGS__)                                                                                \
        NTT_CASE(11, body, __VA_ARGS__)                                                                                \
        NTT_CASE(12, body, __VA_ARGS__)                                                                                \
    default: break;                                                                                                    \
    }

// w^e from two tables: low[i] = w^i for i < 2^12, high[i] = w^(i * 2^12). Canonical.
#define POWER_LOW_BITS 12
FN u64 table_power(const u64 *low, const u64 *high, u64 e) {
    return mul(low[e & ((1u << POWER_LOW_BITS) - 1)], high[e >> POWER_LOW_BITS]);
}

// THE ROWS PASS multiplies element r of lane c by B^reverse(r), B = g w_n^c: a coset for each lane. Of reverse(r), the bits of
// the lowest `LEVELS` levels go into a heap of 2^LEVELS twiddles for each lane, which costs nothing more; what is left,
// B^reverse(r >> LEVELS << LEVELS), is one factor for all elements of a group.

// B^reverse(r) of lane c. powers[r] = g^reverse(r).
FN u64 lane_power(u32 r, u64 c, u32 log_rows, const u64 *powers, const u64 *low, const u64 *high) {
    return mul_canonical(powers[r], table_power(low, high, c * bit_reverse(r, log_rows)));
}

// Entry h + i of a lane's heap: B^(rows / 2h) w_2h^i. For reverse(h) = rows / 2h.
FN u64 lane_twiddle(u32 entry, u64 c, u32 log_rows, const u64 *twiddles, const u64 *powers, const u64 *low,
                    const u64 *high) {
    u32 half = 1;
    while (2 * half <= entry) half *= 2;
    return mul_canonical(lane_power(half, c, log_rows, powers, low, high), twiddles[entry]);
}
