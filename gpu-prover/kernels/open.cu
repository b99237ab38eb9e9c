// Values of many polynomials in a few points, straight from the coefficients: the opened rows of cosets that were not
// kept. A transform of a coset costs more than its ten or so opened rows.
//
// Coefficients lie bit-reversed, so place r * 2^log_block + c holds the exponent reverse(c) * 2^log_rows + reverse(r),
// wherever the bits are cut in two. So
//     f(x) = sum over r of x^reverse(r) * (sum over c of coefficient * (x^(2^log_rows))^reverse(c)),
// and the powers inside are the same for every r: a table small enough for the L2 cache. The inner sums are a product of
// matrices, made of products of bytes on the tensor cores: see `points.cuh`.
#include "points.cuh"

#define COLUMNS 16 // of a block
#define POINTS 16  // of a block
#define THREADS 256
#define STEPS 4 // of 32 coefficients that are in fast memory at a time
// A warp has 8 of the columns, two to a tile, and 4 of the points, one to a tile.
#define COLUMN_TILES 4
#define POINT_TILES 4
// Words of a column tile of one step: 64, and padding that spreads the tiles' writes over the banks.
#define TILE 72

FN void multiply_bytes(u32 (&sum)[4], ulonglong2 a, u64 b) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.u8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+r"(sum[0]), "+r"(sum[1]), "+r"(sum[2]), "+r"(sum[3])
        : "r"(lo32(a.x)), "r"(lo32(a.y)), "r"(hi32(a.x)), "r"(hi32(a.y)), "r"(lo32(b)), "r"(hi32(b)));
}

// One of two values, the second one for lanes with bit `half`, added to what the partner has of it.
FN u64 add_over_lanes(u64 first, u64 second, u32 lane, u32 half) {
    bool upper = lane & half;
    return add(upper ? second : first, __shfl_xor_sync(0xffffffff, upper ? first : second, half));
}

template <u32 HALF> FN void halve(u64 *values, u32 lane) {
#pragma unroll
    for (u32 i = 0; i < HALF; i++) values[i] = add_over_lanes(values[i], values[i + HALF], lane, HALF);
}

// out[(r * num_columns + column) * points + point]: the inner sum of block r times its outer power. blockIdx.x is a group of
// columns and of points, the points first, blockIdx.y is r. inner[(step * points + point) * 32 + lane] are lanes' words of
// B for steps of 32 powers, outer[r * points + point] the powers. 7 <= log_block <= 15.
KERNEL __launch_bounds__(THREADS, 2) evaluate_points(const u64 *columns, u64 stride, u32 num_columns, u32 log_block,
                                                     u32 point_groups, const u64 *inner, const u64 *outer, u64 *out) {
    __shared__ __align__(16) u64 tiles[2][STEPS][COLUMNS / 2][TILE];
    u32 thread = threadIdx.x, lane = thread % 32, warp = thread / 32, r = blockIdx.y;
    u32 points = point_groups * POINTS, first_column = blockIdx.x / point_groups * COLUMNS;
    u32 first_tile = warp % 2 * COLUMN_TILES;
    u32 first_point = blockIdx.x % point_groups * POINTS + warp / 2 * POINT_TILES;
    const u64 *powers = inner + (u64)first_point * 32 + lane;

    // This thread brings eight coefficients of a column at a time: what the lanes of remainder `unit` % 4 have of a step.
    u32 my_column = thread / 16, unit = thread % 16;
    bool mine = first_column + my_column < num_columns;
    const ulonglong2 *source =
        (const ulonglong2 *)(columns + (first_column + my_column) * stride + ((u64)r << log_block) + 8 * unit);
    u64 *target = &tiles[0][unit / 4][my_column / 2][2 * (unit % 4) + my_column % 2];
    ulonglong2 loaded[4];
    auto load = [&]() {
#pragma unroll
        for (u32 i = 0; i < 4; i++) loaded[i] = mine ? source[i] : make_ulonglong2(0, 0);
        source += 16 * STEPS;
    };
    auto store = [&](u32 buffer) {
        u64 words[8], bytes[8];
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            words[2 * i] = loaded[i].x;
            words[2 * i + 1] = loaded[i].y;
        }
        transpose_8x8(words, bytes);
#pragma unroll
        for (u32 i = 0; i < 8; i++) target[buffer * (STEPS * COLUMNS / 2 * TILE) + 8 * i] = bytes[i];
    };

    u32 sums[COLUMN_TILES][POINT_TILES][4] = {};
    u32 stages = 1u << log_block >> 7;
    load();
    store(0);
    __syncthreads();
#pragma unroll 1
    for (u32 stage = 0; stage < stages; stage++) {
        u32 buffer = stage % 2;
        if (stage + 1 < stages) load();
#pragma unroll
        for (u32 step = 0; step < STEPS; step++) {
            u64 b[POINT_TILES];
#pragma unroll
            for (u32 j = 0; j < POINT_TILES; j++) b[j] = __ldg(powers + 32 * j);
            powers += 32 * points;
#pragma unroll
            for (u32 i = 0; i < COLUMN_TILES; i++) {
                ulonglong2 a = *(const ulonglong2 *)&tiles[buffer][step][first_tile + i][2 * lane];
#pragma unroll
                for (u32 j = 0; j < POINT_TILES; j++) multiply_bytes(sums[i][j], a, b[j]);
            }
        }
        if (stage + 1 < stages) store(buffer ^ 1);
        __syncthreads();
    }

    // Each lane has four of the 64 places of a product, for two columns; with their values they only have to be added up: 32
    // sums over 32 lanes, of which lane l ends up with sum l. At each turn a lane keeps half of what it has.
    u64 place = place_value(lane / 4 + 2 * (lane % 4));
    u64 parts[COLUMN_TILES * POINT_TILES];
#pragma unroll
    for (u32 j = 0; j < POINT_TILES; j++) {
        u64 factor = mul_canonical(place, outer[(u64)r * points + first_point + j]);
#pragma unroll
        for (u32 i = 0; i < COLUMN_TILES / 2; i++)
#pragma unroll
            for (u32 k = 0; k < 4; k += 2) {
                const u32 *low = sums[i][j] + k, *high = sums[i + COLUMN_TILES / 2][j] + k;
                parts[2 * (POINT_TILES * i + j) + k / 2] =
                    add_over_lanes(mul_canonical(join_places(low[0], low[1]), factor),
                                   mul_canonical(join_places(high[0], high[1]), factor), lane, 16);
            }
    }
    halve<8>(parts, lane);
    halve<4>(parts, lane);
    halve<2>(parts, lane);
    halve<1>(parts, lane);
    u32 column = first_column + 2 * (first_tile + lane / 8) + lane % 2;
    if (column < num_columns) out[((u64)r * num_columns + column) * points + first_point + lane / 2 % 4] = parts[0];
}

// Adds up the chunks: out[i] = sum over chunks of parts[chunk * length + i].
KERNEL add_chunks(const u64 *parts, u32 chunks, u64 length, u64 *out) {
    for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < length; i += (u64)gridDim.x * blockDim.x) {
        u64 sum = 0;
        for (u32 chunk = 0; chunk < chunks; chunk++) sum = add(sum, parts[chunk * length + i]);
        out[i] = sum;
    }
}
