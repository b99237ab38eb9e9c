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

// A column's part of a contiguous pass: element `row` lies there.
struct Memory {
    u64 *at;
    MEMBER u64 get(u32, u32 row, u32) const { return at[row]; }
    MEMBER void put(u32, u32 row, u32, u64 value) const { at[row] = value; }
};

FN Team team_of_block(u32 log_width) {
    Team team = {threadIdx.x, blockDim.x, 16 * blockDim.x, log_width};
    return team;
}

template <int S> FN void forward_contiguous(u64 *to, Tile shared, Twiddles twiddles) {
    Memory memory = {to};
    ntt_transform<S, false>(shared, memory, shared, twiddles, twiddles, team_of_block(0));
}

// Pass 1 of the forward transform. `source` may equal `target`. log_block = log2 C.
KERNEL __launch_bounds__(512) ntt_forward_contiguous(const u64 *source, u64 source_stride, u64 *target,
                                                     u64 target_stride, u32 log_n, u32 log_block, const u64 *twiddles,
                                                     Tail tail) {
    u32 elements = 16 * blockDim.x;
    u64 first = (u64)blockIdx.x * elements;
    const u64 *from = source + blockIdx.y * source_stride + first;
    Tile shared = {tile, 0};
    // By way of the tile, because the first phase would read memory in strides of 16 elements.
#pragma unroll 4
    for (u32 e = threadIdx.x; e < elements; e += blockDim.x) {
        u64 value = from[e];
        u64 index = bit_reverse((u32)(first + e), log_n);
        if (index < tail.length)
            value = add(value, mul_canonical(tail.factor, tail.values[blockIdx.y * tail.stride + index]));
        shared.put(0, e, 0, value);
    }
    __syncthreads();
    Twiddles plain = {twiddles};
    NTT_DISPATCH(log_block, forward_contiguous, target + blockIdx.y * target_stride + first, shared, plain)
}

// A lane of the rows pass: row r lies at r << log_c. One factor for each of a thread's groups.
template <u32 TURNS> struct Rows {
    const u64 *from;
    u64 *to;
    u32 log_c;
    u64 factor[TURNS];
};

template <u32 TURNS> struct Scaled {
    const Rows<TURNS> &rows;
    MEMBER u64 get(u32 turn, u32 row, u32 lane) const {
        return mul(rows.from[(row << rows.log_c) + lane], rows.factor[turn]);
    }
    MEMBER void put(u32 turn, u32 row, u32 lane, u64 value) const {
        rows.to[(row << rows.log_c) + lane] = mul(value, rows.factor[turn]);
    }
};

template <u32 TURNS> struct Plain {
    const Rows<TURNS> &rows;
    MEMBER u64 get(u32, u32 row, u32 lane) const { return rows.from[(row << rows.log_c) + lane]; }
    MEMBER void put(u32, u32 row, u32 lane, u64 value) const {
        rows.to[(row << rows.log_c) + lane] = canonical(value);
    }
};

// What both directions of the rows pass are called with. `powers[r]` is the offset's power of row r; `scale` times all.
struct RowsPass {
    const u64 *source;
    u64 source_stride;
    u64 *target;
    u64 target_stride;
    u32 columns, columns_per_block, log_n, log_width;
    const u64 *twiddles, *powers, *low, *high;
    u64 scale;
};

template <int S, bool INVERSE> FN void rows_pass(const RowsPass &pass) {
    const u32 levels = Phases<S>::a, turns = Phases<S>::turns;
    u32 log_width = pass.log_width;
    u64 c0 = (u64)blockIdx.x << log_width;
    Tile shared = {tile, log_width};
    u64 *heap = tile + tile_length(1u << S, log_width);
    for (u32 e = threadIdx.x + (1u << log_width); e < 1u << (levels + log_width); e += blockDim.x) {
        u64 c = c0 + (e & ((1u << log_width) - 1));
        heap[e] = lane_twiddle(e >> log_width, c, S, pass.twiddles, pass.powers, pass.low, pass.high);
    }
    Rows<turns> rows;
    rows.log_c = pass.log_n - S;
#pragma unroll
    for (u32 turn = 0; turn < turns; turn++) {
        u32 unit = threadIdx.x + turn * blockDim.x;
        u64 c = c0 + (unit & ((1u << log_width) - 1));
        u64 power = lane_power((unit >> log_width) << levels, c, S, pass.powers, pass.low, pass.high);
        rows.factor[turn] = mul_canonical(power, pass.scale);
    }
    __syncthreads();
    LaneTwiddles outer = {heap, log_width};
    Twiddles inner = {pass.twiddles};
    Scaled<turns> scaled = {rows};
    Plain<turns> plain = {rows};
    u32 first = blockIdx.y * pass.columns_per_block;
    u32 last = first + pass.columns_per_block < pass.columns ? first + pass.columns_per_block : pass.columns;
#pragma unroll 1
    for (u32 column = first; column < last; column++) {
        // Not known to be the same in each round: else all addresses would be held in registers from one to the next.
        Team team = team_of_block(log_width);
        asm volatile("" : "+r"(team.thread), "+r"(team.log_width), "+r"(rows.log_c));
        shared.log_width = outer.log_width = team.log_width;
        rows.from = pass.source + column * pass.source_stride + c0;
        rows.to = pass.target + column * pass.target_stride + c0;
        if constexpr (INVERSE)
            ntt_transform<S, true>(plain, scaled, shared, outer, inner, team);
        else
            ntt_transform<S, false>(scaled, plain, shared, outer, inner, team);
        __syncthreads(); // the next column's first phase writes the tile
    }
}

// A kernel for each number of rows, as the registers differ. Forward: pass 2, in place; values come out canonical. Inverse:
// pass 1; `source` may equal `target`; `scale` is 1/n. With three levels in the last phase 64 registers do.
#define ROWS_KERNELS(S, THREADS, BLOCKS)                                                                               \
    KERNEL __launch_bounds__(THREADS, BLOCKS) ntt_forward_rows_##S(RowsPass pass) { rows_pass<S, false>(pass); }       \
    KERNEL __launch_bounds__(THREADS, BLOCKS) ntt_inverse_rows_##S(RowsPass pass) { rows_pass<S, true>(pass); }
ROWS_KERNELS(4, 256, 3)
ROWS_KERNELS(5, 256, 3)
ROWS_KERNELS(6, 256, 3)
ROWS_KERNELS(7, 256, 3)
ROWS_KERNELS(8, 256, 3)
ROWS_KERNELS(9, 256, 4)
ROWS_KERNELS(10, 256, 4)
ROWS_KERNELS(11, 512, 1)

template <int S> FN void inverse_contiguous(u64 *at, Tile shared, Twiddles twiddles) {
    Memory memory = {at};
    ntt_transform<S, true>(memory, shared, shared, twiddles, twiddles, team_of_block(0));
}

// Pass 2 of the inverse transform: contiguous blocks, in place; coefficients come out canonical and bit-reversed.
KERNEL __launch_bounds__(512) ntt_inverse_contiguous(u64 *data, u64 stride, u32 log_block, const u64 *twiddles) {
    u32 elements = 16 * blockDim.x;
    u64 *at = data + blockIdx.y * stride + (u64)blockIdx.x * elements;
    Tile shared = {tile, 0};
    Twiddles plain = {twiddles};
    NTT_DISPATCH(log_block, inverse_contiguous, at, shared, plain)
    __syncthreads();
#pragma unroll 4
    for (u32 e = threadIdx.x; e < elements; e += blockDim.x) at[e] = canonical(shared.get(0, e, 0));
}
