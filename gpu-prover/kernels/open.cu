// Values of many polynomials in a few points, straight from the coefficients: the opened rows of cosets that were not
// kept. A transform of a coset costs more than its ten or so opened rows.
//
// Coefficients lie bit-reversed in 2^log_rows blocks of 2^log_block (see `ntt.cuh`): place r * 2^log_block + c holds the
// exponent reverse(c) * 2^log_rows + reverse(r). So
//     f(x) = sum over r of x^reverse(r) * (sum over c of coefficient * (x^(2^log_rows))^reverse(c)),
// and the powers inside are the same for every r: a table of 2^log_block rows, small enough for the L2 cache.
#include "goldilocks.cuh"
#include "accumulator.cuh"

#define POINTS 80     // the collinearity checks; unused ones are zero
#define COLUMNS 24    // of a block
#define PER_THREAD_COLUMNS 4
#define PER_THREAD_POINTS 2
#define STEP 32       // coefficients in fast memory at a time
#define POINT_GROUPS (POINTS / PER_THREAD_POINTS)
#define THREADS (POINT_GROUPS * COLUMNS / PER_THREAD_COLUMNS)

// out[(chunk * columns + column) * POINTS + point]: the part of the sum over the chunk's blocks r. blockIdx.x is the
// chunk, blockIdx.y a group of COLUMNS columns. inner[c * POINTS + point], outer[r * POINTS + point] are the powers.
KERNEL __launch_bounds__(THREADS, 2) evaluate_points(const u64 *columns, u64 stride, u32 num_columns, u32 log_rows,
                                                     u32 log_block, const u64 *inner, const u64 *outer, u64 *out) {
    __shared__ u64 coefficients[COLUMNS][STEP];
    __shared__ __align__(16) u64 powers[STEP][POINTS];
    u32 point = threadIdx.x % POINT_GROUPS * PER_THREAD_POINTS, group = threadIdx.x / POINT_GROUPS;
    u32 first_column = blockIdx.y * COLUMNS;
    u32 each = (1u << log_rows) / gridDim.x, first_row = blockIdx.x * each;
    u64 total[PER_THREAD_COLUMNS][PER_THREAD_POINTS] = {};
#pragma unroll 1
    for (u32 r = first_row; r < first_row + each; r++) {
        Acc sums[PER_THREAD_COLUMNS][PER_THREAD_POINTS];
#pragma unroll
        for (u32 i = 0; i < PER_THREAD_COLUMNS; i++)
#pragma unroll
            for (u32 j = 0; j < PER_THREAD_POINTS; j++) sums[i][j] = acc_zero(0);
#pragma unroll 1
        for (u32 c = 0; c < 1u << log_block; c += STEP) {
            __syncthreads();
            for (u32 i = threadIdx.x; i < COLUMNS * STEP; i += THREADS) {
                u32 column = first_column + i / STEP;
                const u64 *at = columns + column * stride + ((u64)r << log_block) + c;
                coefficients[i / STEP][i % STEP] = column < num_columns ? at[i % STEP] : 0;
            }
            for (u32 i = threadIdx.x; i < STEP * POINTS; i += THREADS) powers[0][i] = inner[(u64)c * POINTS + i];
            __syncthreads();
#pragma unroll 2
            for (u32 k = 0; k < STEP; k++) {
                ulonglong2 power = *(const ulonglong2 *)&powers[k][point];
#pragma unroll
                for (u32 i = 0; i < PER_THREAD_COLUMNS; i++) {
                    u64 coefficient = coefficients[group * PER_THREAD_COLUMNS + i][k];
                    acc_mul(sums[i][0], coefficient, power.x);
                    acc_mul(sums[i][1], coefficient, power.y);
                }
            }
        }
#pragma unroll
        for (u32 j = 0; j < PER_THREAD_POINTS; j++) {
            u64 power = outer[(u64)r * POINTS + point + j];
#pragma unroll
            for (u32 i = 0; i < PER_THREAD_COLUMNS; i++)
                total[i][j] = add(total[i][j], mul_canonical(canonical(acc_value(sums[i][j])), power));
        }
    }
#pragma unroll
    for (u32 i = 0; i < PER_THREAD_COLUMNS; i++) {
        u32 column = first_column + group * PER_THREAD_COLUMNS + i;
        if (column >= num_columns) continue;
#pragma unroll
        for (u32 j = 0; j < PER_THREAD_POINTS; j++)
            out[((u64)blockIdx.x * num_columns + column) * POINTS + point + j] = total[i][j];
    }
}

// Adds up the chunks: out[i] = sum over chunks of parts[chunk * length + i].
KERNEL add_chunks(const u64 *parts, u32 chunks, u64 length, u64 *out) {
    for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < length; i += (u64)gridDim.x * blockDim.x) {
        u64 sum = 0;
        for (u32 chunk = 0; chunk < chunks; chunk++) sum = add(sum, parts[chunk * length + i]);
        out[i] = sum;
    }
}
