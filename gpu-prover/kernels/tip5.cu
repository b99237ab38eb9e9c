// Tip5 over matrices and trees: row hashes, Merkle levels.
//
// Two forms of each kernel. `*_dmma` keeps one state in a quad of lanes and multiplies by the MDS matrix on the FP64
// tensor cores; it is for devices with full-rate FP64 (compute capability 8.0, 9.0, 10.0). `*_plain` keeps one state in
// a thread and is for the rest. The host picks by compute capability.
//
// WHY FP64: the matrix entries are below 2^16 and each row sums to less than 2^20, so a row times 32-bit halves of the
// state is an integer below 2^52: exact in a double. The integer pipes, which x^7 saturates, are left alone.
//
// THE FRAGMENT: mma.m16n8k16 takes 16 states (rows of A), 16 elements (K) and gives 8 elements (N). Lane (g, t) =
// (lane / 4, lane % 4) holds of states g and g+8 the elements 4s + t for s = 0..3 (slot s): that is A's own layout. For
// the result to come back in the same layout the columns of B are permuted: the first product's column 2t + b is
// element 4b + t, the second's is 4(b + 2) + t. So a round has no shuffle, every lane has one look-up element (slot 0)
// per state and three of x^7: no divergence.
//
// NO CONVERSIONS: a half placed in the low word of a double, high word 0, is the denormal half * 2^-1074. With the
// matrix scaled by 2^1007 and the accumulator started at 2^-15 (whose unit in the last place is 2^-67 = 2^(1007-1074)),
// the low 52 bits of the result are the integer sum; the round constant's half rides in the accumulator's low word.
#include "tip5.cuh"

__constant__ u32 mds_constant[16] = {TIP5_MDS_COLUMN};
__constant__ u64 round_constants[80] = {TIP5_ROUND_CONSTANTS};
__constant__ u8 lookup_constant[256] = {TIP5_LOOKUP};

#define THREADS 256
#define STATES_PER_WARP 16

// Per block: the look-up bytes once per bank, each replicated into the four bytes of a word (32 KiB: no bank conflict,
// and a byte is put in place by one mask), and the round constants.
struct Shared {
    u32 lookup[256 * 32];
    u64 constants[80];
};

#if __CUDA_ARCH__ >= 900 || !defined(__CUDA_ARCH__)
#define HAVE_M16N8K16 1
#endif

__device__ __forceinline__ void load_shared(Shared &shared) {
    for (u32 i = threadIdx.x; i < 256 * 32; i += blockDim.x)
        shared.lookup[i] = 0x01010101u * (u32)lookup_constant[i >> 5];
    for (u32 i = threadIdx.x; i < 80; i += blockDim.x) shared.constants[i] = round_constants[i];
    __syncthreads();
}

// The lane's eight entries of B, scaled by 2^1007: see THE FRAGMENT. b[0..4] for slots 0 and 1, b[4..8] for 2 and 3.
__device__ __forceinline__ void load_matrix(double b[8]) {
    u32 lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            u32 out = 4 * (2 * half + (g & 1)) + (g >> 1);
            u32 in = 4 * i + t;
            // 2^1007: exponent field 1007 + 1023
            double scale = __hiloint2double((1007 + 1023) << 20, 0);
            b[4 * half + i] = (double)mds_constant[(out - in) & 15] * scale;
        }
    }
}

__device__ __forceinline__ u64 look_up(u64 a, const u32 *lookup) {
    u64 x = canonical(a);
    u32 lane = threadIdx.x & 31, r[2];
#pragma unroll
    for (u32 w = 0; w < 2; w++) {
        u32 v = w ? hi32(x) : lo32(x);
        u32 b0 = lookup[(v & 255) * 32 + lane];
        u32 b1 = lookup[((v >> 8) & 255) * 32 + lane];
        u32 b2 = lookup[((v >> 16) & 255) * 32 + lane];
        u32 b3 = lookup[(v >> 24) * 32 + lane];
        r[w] = (b0 & 0xffu) | (b1 & 0xff00u) | (b2 & 0xff0000u) | (b3 & 0xff000000u);
    }
    return u64_of(r[0], r[1]);
}

// d = a * b + c over 16 states; c's low words are the round constants' halves.
__device__ __forceinline__ void multiply(double d[4], const double a[8], const double b[4], u32 rc0, u32 rc1) {
    double c0 = __hiloint2double(0x3f000000, rc0), c1 = __hiloint2double(0x3f000000, rc1);
#ifdef HAVE_M16N8K16
    asm("mma.sync.aligned.m16n8k16.row.col.f64.f64.f64.f64 {%0,%1,%2,%3}, {%4,%5,%6,%7,%8,%9,%10,%11}, "
        "{%12,%13,%14,%15}, {%16,%17,%18,%19};"
        : "=d"(d[0]), "=d"(d[1]), "=d"(d[2]), "=d"(d[3])
        : "d"(a[0]), "d"(a[1]), "d"(a[2]), "d"(a[3]), "d"(a[4]), "d"(a[5]), "d"(a[6]), "d"(a[7]), "d"(b[0]),
          "d"(b[1]), "d"(b[2]), "d"(b[3]), "d"(c0), "d"(c1), "d"(c0), "d"(c1));
#else
    // Compute capability 8.0 has m8n8k4 only: four steps over K for each half of the states.
    d[0] = d[2] = c0;
    d[1] = d[3] = c1;
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
        asm("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0,%1}, {%2}, {%3}, {%0,%1};"
            : "+d"(d[0]), "+d"(d[1])
            : "d"(a[2 * i]), "d"(b[i]));
        asm("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0,%1}, {%2}, {%3}, {%0,%1};"
            : "+d"(d[2]), "+d"(d[3])
            : "d"(a[2 * i + 1]), "d"(b[i]));
    }
#endif
}

// The integer sums in the mantissas of `low` and `high`, joined: see tip5_join. With l = l1:l0 and h = h1:h0 the sum is
// (h0:l0) + (l1 + h1 : 0) - h1; the high words of the doubles are l1 and h1 with an offset of 0x3f000000 each.
__device__ __forceinline__ u64 join(double low, double high) {
    u32 r0, r1;
    asm("{\n\t.reg .u32 x, h1, c, m;\n\t"
        "add.u32 x, %3, %5;\n\t"
        "add.u32 x, x, 0x82000000;\n\t" // both offsets
        "add.u32 h1, %5, 0xc1000000;\n\t"
        "add.cc.u32 %1, %4, x;\n\t"
        "addc.u32 c, 0, 0;\n\t"
        "sub.cc.u32 %0, %2, h1;\n\t"
        "subc.cc.u32 %1, %1, 0;\n\t"
        "subc.u32 m, 0, c;\n\t" // minus one if the sum reaches 2^64
        "add.cc.u32 %0, %0, m;\n\t"
        "addc.u32 %1, %1, 0;\n\t}"
        : "=&r"(r0), "=&r"(r1)
        : "r"((u32)__double2loint(low)), "r"((u32)__double2hiint(low)), "r"((u32)__double2loint(high)),
          "r"((u32)__double2hiint(high)));
    return u64_of(r0, r1);
}

// Permutes the two states of the quad. slot[s][0] belongs to state g, slot[s][1] to state g + 8; any in, any out.
__device__ __forceinline__ void permute_quad(u64 slot[4][2], const double b[8], const Shared &shared) {
    u32 t = threadIdx.x & 3;
#pragma unroll 1
    for (u32 round = 0; round < TIP5_ROUNDS; round++) {
        double low[8], high[8];
#pragma unroll
        for (u32 s = 0; s < 4; s++) {
#pragma unroll
            for (u32 k = 0; k < 2; k++) {
                u64 x = s == 0 ? look_up(slot[0][k], shared.lookup) : tip5_power(slot[s][k]);
                low[2 * s + k] = __hiloint2double(0, lo32(x));
                high[2 * s + k] = __hiloint2double(0, hi32(x));
            }
        }
        const u64 *rc = shared.constants + TIP5_STATE * round + t;
        u64 r0 = rc[0], r1 = rc[4], r2 = rc[8], r3 = rc[12];
        double dl[4], dh[4];
        multiply(dl, low, b, lo32(r0), lo32(r1));
        multiply(dh, high, b, hi32(r0), hi32(r1));
#pragma unroll
        for (u32 s = 0; s < 2; s++) {
            slot[s][0] = join(dl[s], dh[s]);
            slot[s][1] = join(dl[2 + s], dh[2 + s]);
        }
        multiply(dl, low, b + 4, lo32(r2), lo32(r3));
        multiply(dh, high, b + 4, hi32(r2), hi32(r3));
#pragma unroll
        for (u32 s = 0; s < 2; s++) {
            slot[2 + s][0] = join(dl[s], dh[s]);
            slot[2 + s][1] = join(dl[2 + s], dh[2 + s]);
        }
    }
}

// Element `e` of block `chunk` of row `row` as the sponge absorbs it: the row, a one, zeros.
__device__ __forceinline__ u64 padded(const u64 *columns, u64 stride, u32 num_columns, u32 row, u32 column) {
    if (column < num_columns) return columns[(u64)column * stride + row];
    return column == num_columns ? ONE : 0;
}

// Hashes rows of a column-major matrix (`num_columns` columns, `stride` apart, `rows` rows; canonical elements) and
// writes row r's digest to digests[leaf_stride * r + leaf_offset].
// Grid: any number of blocks of 256 threads; 16 rows a warp and step.
KERNEL __launch_bounds__(THREADS, 3) row_hash_dmma(const u64 *columns, u64 stride, u32 num_columns, u64 rows,
                                                   u64 *digests, u64 leaf_stride, u64 leaf_offset) {
    __shared__ Shared shared;
    load_shared(shared);
    double b[8];
    load_matrix(b);
    u32 lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
    u32 num_chunks = num_columns / TIP5_RATE + 1;
    u32 last = (u32)rows - 1, warps = gridDim.x * (THREADS / 32);
    for (u32 tile = blockIdx.x * (THREADS / 32) + threadIdx.x / 32; tile * STATES_PER_WARP <= last; tile += warps) {
        // Rows past the end repeat the last one: every lane of a warp must take part in the products. They also write
        // its digest again, with the same value.
        u32 row = tile * STATES_PER_WARP + g;
        u32 from[2] = {row < last ? row : last, row + 8 < last ? row + 8 : last};
        u64 slot[4][2] = {};
        // All chunks but the last are full. No loads ahead: other warps hide their latency, and twelve more registers would
        // spill.
        const u64 *at = columns + t * stride + from[0];
        u32 distance = from[1] - from[0];
#pragma unroll 1
        for (u32 chunk = 1; chunk < num_chunks; chunk++) {
#pragma unroll
            for (u32 k = 0; k < 2; k++) {
                const u64 *place = k ? at + distance : at;
                slot[0][k] = place[0];
                slot[1][k] = place[4 * stride];
                if (t < 2) slot[2][k] = place[8 * stride];
            }
            at += TIP5_RATE * stride;
            permute_quad(slot, b, shared);
        }
        u32 column = (num_chunks - 1) * TIP5_RATE + t;
#pragma unroll
        for (u32 k = 0; k < 2; k++) {
            slot[0][k] = padded(columns, stride, num_columns, from[k], column);
            slot[1][k] = padded(columns, stride, num_columns, from[k], column + 4);
            if (t < 2) slot[2][k] = padded(columns, stride, num_columns, from[k], column + 8);
        }
        permute_quad(slot, b, shared);
#pragma unroll
        for (u32 k = 0; k < 2; k++) {
            u64 *digest = digests + TIP5_DIGEST * (leaf_stride * from[k] + leaf_offset);
            digest[t] = canonical(slot[0][k]);
            if (t == 0) digest[4] = canonical(slot[1][k]);
        }
    }
}

__device__ __forceinline__ void merkle_level(u64 *nodes, u32 parents, u32 first_tile, u32 tile_step,
                                             const double b[8], const Shared &shared) {
    u32 lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
    for (u32 tile = first_tile; tile * STATES_PER_WARP < parents; tile += tile_step) {
        u64 slot[4][2];
        u32 node[2];
#pragma unroll
        for (u32 k = 0; k < 2; k++) {
            u32 i = tile * STATES_PER_WARP + g + 8 * k;
            node[k] = parents + (i < parents ? i : parents - 1);
            const u64 *children = nodes + (u64)(2 * TIP5_DIGEST) * node[k];
            slot[0][k] = children[t];
            slot[1][k] = children[4 + t];
            slot[2][k] = t < 2 ? children[8 + t] : ONE;
            slot[3][k] = ONE;
        }
        permute_quad(slot, b, shared);
#pragma unroll
        for (u32 k = 0; k < 2; k++) {
            u64 *digest = nodes + (u64)TIP5_DIGEST * node[k];
            digest[t] = canonical(slot[0][k]);
            if (t == 0) digest[4] = canonical(slot[1][k]);
        }
    }
}

// One level of a Merkle tree in heap order: nodes[parents .. 2*parents] from nodes[2*parents .. 4*parents].
KERNEL __launch_bounds__(THREADS, 3) merkle_level_dmma(u64 *nodes, u64 parents) {
    __shared__ Shared shared;
    load_shared(shared);
    double b[8];
    load_matrix(b);
    merkle_level(nodes, (u32)parents, blockIdx.x * (THREADS / 32) + threadIdx.x / 32, gridDim.x * (THREADS / 32), b,
                 shared);
}

// All levels from `parents` nodes up to the root, in one block: launches would cost more than the hashing.
KERNEL __launch_bounds__(THREADS, 1) merkle_top_dmma(u64 *nodes, u64 parents) {
    __shared__ Shared shared;
    load_shared(shared);
    double b[8];
    load_matrix(b);
    for (; parents; parents >>= 1) {
        merkle_level(nodes, (u32)parents, threadIdx.x / 32, THREADS / 32, b, shared);
        __syncthreads();
    }
}

// ---- one state a thread -------------------------------------------------------------------------------------------

__device__ __forceinline__ void load_lookup(u8 *lookup) {
    for (u32 i = threadIdx.x; i < 256; i += blockDim.x) lookup[i] = lookup_constant[i];
    __syncthreads();
}

KERNEL __launch_bounds__(THREADS) row_hash_plain(const u64 *columns, u64 stride, u32 num_columns, u64 rows,
                                                 u64 *digests, u64 leaf_stride, u64 leaf_offset) {
    __shared__ u8 lookup[256];
    load_lookup(lookup);
    u32 num_chunks = num_columns / TIP5_RATE + 1;
    for (u64 row = (u64)blockIdx.x * THREADS + threadIdx.x; row < rows; row += (u64)gridDim.x * THREADS) {
        u64 state[TIP5_STATE] = {};
#pragma unroll 1
        for (u32 chunk = 0; chunk < num_chunks; chunk++) {
#pragma unroll
            for (u32 e = 0; e < TIP5_RATE; e++)
                state[e] = padded(columns, stride, num_columns, row, chunk * TIP5_RATE + e);
            tip5_permutation(state, lookup, round_constants, mds_constant);
        }
        u64 *digest = digests + TIP5_DIGEST * (leaf_stride * row + leaf_offset);
#pragma unroll
        for (u32 e = 0; e < TIP5_DIGEST; e++) digest[e] = state[e];
    }
}

__device__ __forceinline__ void merkle_level_thread(u64 *nodes, u64 parents, u64 first, u64 step, const u8 *lookup) {
    for (u64 i = first; i < parents; i += step) {
        u64 state[TIP5_STATE];
        const u64 *children = nodes + 2 * TIP5_DIGEST * (parents + i);
#pragma unroll
        for (u32 e = 0; e < TIP5_STATE; e++) state[e] = e < TIP5_RATE ? children[e] : ONE;
        tip5_permutation(state, lookup, round_constants, mds_constant);
#pragma unroll
        for (u32 e = 0; e < TIP5_DIGEST; e++) nodes[TIP5_DIGEST * (parents + i) + e] = state[e];
    }
}

KERNEL __launch_bounds__(THREADS) merkle_level_plain(u64 *nodes, u64 parents) {
    __shared__ u8 lookup[256];
    load_lookup(lookup);
    merkle_level_thread(nodes, parents, (u64)blockIdx.x * THREADS + threadIdx.x, (u64)gridDim.x * THREADS, lookup);
}

KERNEL __launch_bounds__(THREADS) merkle_top_plain(u64 *nodes, u64 parents) {
    __shared__ u8 lookup[256];
    load_lookup(lookup);
    for (; parents; parents >>= 1) {
        merkle_level_thread(nodes, parents, threadIdx.x, THREADS, lookup);
        __syncthreads();
    }
}

// Leaves of a FRI tree: an extension element is its own digest, [c0, c1, c2, 0, 0]. The codeword lies coset by coset
// (coset j of 8 holds rows j, j + 8, ...), leaves in the domain's order.
KERNEL fri_leaves(const u64 *codeword, u64 column_stride, u64 coset_rows, u64 *leaves) {
    u64 rows = 8 * coset_rows;
    for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < rows; i += (u64)gridDim.x * blockDim.x) {
        u64 from = (i & 7) * coset_rows + (i >> 3);
        u64 *leaf = leaves + TIP5_DIGEST * i;
        leaf[0] = codeword[from];
        leaf[1] = codeword[column_stride + from];
        leaf[2] = codeword[2 * column_stride + from];
        leaf[3] = leaf[4] = 0;
    }
}
