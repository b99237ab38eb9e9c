// Moving tables about: layouts, openings, and sums of columns.
#include "xfield.cuh"

// Element of this thread in a one-dimensional grid, with the grid's stride.
#define FOR_EACH(i, count)                                                                                             \
    for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < (count); i += (u64)gridDim.x * blockDim.x)

// Extension elements as the host has them (three coefficients together, `rows` to a column) to three base columns each.
// With log_n != 0, row i goes to place reverse(i): coefficients are kept bit-reversed.
KERNEL split_coefficients(const u64 *elements, u64 rows, u64 columns, u64 *out, u64 stride, u32 log_n) {
    FOR_EACH(i, rows * columns) {
        u64 column = i / rows, row = i % rows;
        u64 to = log_n ? bit_reverse((u32)row, log_n) : row;
        x_store(out + 3 * column * stride, stride, to, x_of(elements[3 * i], elements[3 * i + 1], elements[3 * i + 2]));
    }
}

// out = a + factor * b, element by element over `columns` columns. Factor in the base field.
KERNEL add_scaled(const u64 *a, u64 a_stride, u64 factor, const u64 *b, u64 b_stride, u64 *out, u64 out_stride,
                  u64 rows, u32 columns) {
    FOR_EACH(i, rows) {
        for (u32 c = 0; c < columns; c++)
            out[c * out_stride + i] = add(a[c * a_stride + i], mul_canonical(factor, b[c * b_stride + i]));
    }
}

// Rows of a column-major matrix: out[k * columns + c] = matrix[c * stride + rows[k]].
KERNEL gather_rows(const u64 *matrix, u64 stride, u32 columns, const u64 *rows, u32 num_rows, u64 *out) {
    FOR_EACH(i, (u64)num_rows * columns) {
        u64 k = i / columns, c = i % columns;
        out[i] = matrix[c * stride + rows[k]];
    }
}

// Nodes of a tree: out[5 * k ..] = nodes[5 * indices[k] ..].
KERNEL gather_nodes(const u64 *nodes, const u64 *indices, u32 num, u64 *out) {
    FOR_EACH(i, (u64)5 * num) out[i] = nodes[5 * indices[i / 5] + i % 5];
}

// out[row] = sum of weights[i] * column i over `base` base columns and then `extension` extension columns (of three
// base columns each). Weights as matrices.
KERNEL __launch_bounds__(256) combine_columns(const u64 *base_columns, u64 base_stride, u32 base,
                                              const u64 *extension_columns, u64 extension_stride, u32 extension,
                                              const XMat *weights, u64 rows, u64 *out, u64 out_stride) {
    extern __shared__ u64 shared[];
    // Weights are the same for all rows: one copy a block.
    u32 words = 7 * (base + extension);
    for (u32 i = threadIdx.x; i < words; i += blockDim.x) shared[i] = ((const u64 *)weights)[i];
    __syncthreads();
    const XMat *w = (const XMat *)shared;
    FOR_EACH(row, rows) {
        AccX sum = accx_zero(0);
#pragma unroll 4
        for (u32 c = 0; c < base; c++) {
            u64 v = base_columns[c * base_stride + row];
            acc_mul(sum.c0, v, w[c].w0);
            acc_mul(sum.c1, v, w[c].w1);
            acc_mul(sum.c2, v, w[c].w2);
        }
#pragma unroll 2
        for (u32 c = 0; c < extension; c++)
            accx_mul(sum, x_load(extension_columns + 3 * c * extension_stride, extension_stride, row), w[base + c]);
        x_store(out, out_stride, row, x_canonical(accx_value(sum)));
    }
}

// values[reverse(i)] += terms[i] for extension columns: short polynomials into bit-reversed ones.
KERNEL add_at_reversed(const u64 *terms, u32 num, u64 *values, u64 stride, u32 log_n) {
    FOR_EACH(i, num) {
        u64 at = bit_reverse((u32)i, log_n);
        x_store(values, stride, at,
                x_add(x_load(values, stride, at), x_of(terms[3 * i], terms[3 * i + 1], terms[3 * i + 2])));
    }
}

// Powers of an extension element in bit-reversed order: out[p] = x^reverse(p), from low[i] = x^i for i < 1024 and
// high[i] = x^(1024 i).
KERNEL reversed_powers(const u64 *low, const u64 *high, u32 log_n, u64 *out) {
    u64 n = 1ull << log_n;
    FOR_EACH(p, n) {
        u32 e = bit_reverse((u32)p, log_n);
        const u64 *l = low + 3 * (e & 1023), *h = high + 3 * (e >> 10);
        x_store(out, n, p, x_canonical(x_mul(x_of(l[0], l[1], l[2]), x_of(h[0], h[1], h[2]))));
    }
}

// Sum of an extension element over the block's 256 threads; every thread must call it, thread 0 has the result.
__device__ __forceinline__ X block_sum(X value) {
    __shared__ u64 partial[3][8];
#pragma unroll
    for (u32 offset = 16; offset; offset >>= 1) {
        X other = x_of(__shfl_down_sync(~0u, value.c0, offset), __shfl_down_sync(~0u, value.c1, offset),
                       __shfl_down_sync(~0u, value.c2, offset));
        value = x_add(value, other);
    }
    u32 warp = threadIdx.x / 32;
    __syncthreads();
    if (threadIdx.x % 32 == 0) partial[0][warp] = value.c0, partial[1][warp] = value.c1, partial[2][warp] = value.c2;
    __syncthreads();
    if (threadIdx.x == 0)
        for (u32 i = 1; i < 8; i++) value = x_add(value, x_of(partial[0][i], partial[1][i], partial[2][i]));
    return value;
}

// Inner products of base columns with two vectors of powers: one block a column (y) and chunk of rows (x).
// out[((chunk * columns) + column) * 6 ..]: the value in the first point, then in the second.
KERNEL __launch_bounds__(256) evaluate_columns(const u64 *columns, u64 stride, u64 rows, const u64 *powers0,
                                               const u64 *powers1, u64 *out) {
    u64 chunk = (rows + gridDim.x - 1) / gridDim.x, first = blockIdx.x * chunk;
    u64 last = first + chunk < rows ? first + chunk : rows;
    const u64 *column = columns + blockIdx.y * stride;
    AccX a = accx_zero(0), b = accx_zero(0);
#pragma unroll 2
    for (u64 i = first + threadIdx.x; i < last; i += 256) {
        u64 v = column[i];
        accx_mul_base(a, x_load(powers0, rows, i), v);
        accx_mul_base(b, x_load(powers1, rows, i), v);
    }
    X sum0 = block_sum(x_canonical(accx_value(a)));
    X sum1 = block_sum(x_canonical(accx_value(b)));
    if (threadIdx.x == 0) {
        u64 *to = out + 6 * ((u64)blockIdx.x * gridDim.y + blockIdx.y);
        to[0] = sum0.c0, to[1] = sum0.c1, to[2] = sum0.c2;
        to[3] = sum1.c0, to[4] = sum1.c1, to[5] = sum1.c2;
    }
}
