// The DEEP codeword and FRI's folding. Codewords lie coset by coset: element 8 i + j of the domain at j * rows + i, so
// that both halves of a fold (N/2 apart) lie in one coset.
#include "ntt.cuh"
#include "xfield.cuh"

struct Deep {
    X points[4]; // a, w a, a^4, (3 a)^4
    X values[4]; // W(a), W(w a), P(a^4), R((3 a)^4)
    X weights[4];
};

// On one coset: sum over k of weights[k] * (V_k - values[k]) / (x - points[k]), with V = W, W, P, R. The three
// codewords are extension columns of n rows. One inversion for the four denominators.
KERNEL deep_codeword(const u64 *codewords, u64 n, Deep deep, u64 offset, const u64 *power_low, const u64 *power_high,
                     u64 *out, u64 out_stride) {
    for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (u64)gridDim.x * blockDim.x) {
        u64 x = mul_canonical(offset, table_power(power_low, power_high, i));
        X d[4], prefix[4];
#pragma unroll
        for (u32 k = 0; k < 4; k++) {
            d[k] = x_sub(x_of(x, 0, 0), deep.points[k]);
            prefix[k] = k == 0 ? d[0] : x_canonical(x_mul(prefix[k - 1], d[k]));
        }
        X rest = x_inverse(prefix[3]);
        X sum = x_of(0, 0, 0);
#pragma unroll
        for (int k = 3; k >= 0; k--) {
            X inverted = k == 0 ? rest : x_mul(rest, prefix[k - 1]);
            rest = x_canonical(x_mul(rest, d[k]));
            const u64 *codeword = codewords + (k < 2 ? 0 : 3 * (k - 1)) * n;
            X difference = x_sub(x_load(codeword, n, i), deep.values[k]);
            X term = x_mul(x_mul(difference, inverted), deep.weights[k]);
            sum = x_add(sum, x_canonical(term));
        }
        x_store(out, out_stride, i, sum);
    }
}

// One folding: g_i = ((1 + c/x) f_i + (1 - c/x) f_{i+N/2}) / 2 = (f_i + f')/2 + c/(2x) (f_i - f').
// The codeword has 8 cosets of 2 * half rows, the result 8 of half rows. 1/x of element 8 i + j is
// offset_inverse * w^-(step * (8 i + j)), w of order 8n by table; step = 2^round.
KERNEL fri_fold(const u64 *codeword, u64 column_stride, u64 half, X half_challenge, u64 half_inverse, u64 offset_inverse,
                u64 step, const u64 *power_low, const u64 *power_high, u64 *out, u64 out_column_stride) {
    u64 rows = 8 * half;
    XMat challenge = x_matrix(half_challenge);
    for (u64 k = (u64)blockIdx.x * blockDim.x + threadIdx.x; k < rows; k += (u64)gridDim.x * blockDim.x) {
        u64 coset = k / half, i = k % half;
        u64 from = coset * 2 * half + i;
        X a = x_load(codeword, column_stride, from), b = x_load(codeword, column_stride, from + half);
        u64 x = mul_canonical(offset_inverse, table_power(power_low, power_high, step * (8 * i + coset)));
        X odd = x_mul_base(x_mul_matrix(x_sub(a, b), challenge), x);
        X even = x_mul_base(x_add(a, b), half_inverse);
        x_store(out, out_column_stride, k, x_add(x_canonical(odd), x_canonical(even)));
    }
}

// Elements of a codeword in the domain's order: out[3 k ..] = element indices[k].
KERNEL gather_codeword(const u64 *codeword, u64 column_stride, u64 coset_rows, const u64 *indices, u32 num, u64 *out) {
    for (u64 k = (u64)blockIdx.x * blockDim.x + threadIdx.x; k < num; k += (u64)gridDim.x * blockDim.x) {
        u64 from = (indices[k] & 7) * coset_rows + (indices[k] >> 3);
        for (u32 c = 0; c < 3; c++) out[3 * k + c] = codeword[c * column_stride + from];
    }
}
