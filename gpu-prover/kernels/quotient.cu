// From constraint sums on cosets to the five randomized quotient segments.
//
// With n the trace length and g_j = 7 w^j, w of order 8n, coset j is g_j <w_n>. Interpolating a codeword on coset j gives
// Q modulo X^n - g_j^n: n coefficients, a *residue*. Coefficient q_{i+nt} of Q enters residue j as q_{i+nt} g_j^{nt}, so
// the residues of one i are a short transform of the q_{i+nt}, and no transform is ever longer than n.
//
// FOUR COSETS: transition and consistency quotients have degree below 4n (for n >= 512, with 105 trace randomizers), so
// the even cosets, which together are the coset 7 <w_4n>, determine them. Initial and terminal quotients reach 4n + 415;
// they are cheap and are evaluated on coset 1 too. If E is their part and e its remainder modulo X^4n - 7^4n, then
// E = e + H (X^4n - 7^4n) with deg H <= 415, and on coset 1, where X^4n = -7^4n: H = (E_1 - e_1) / (-2 * 7^4n).
#include "ntt.cuh"
#include "xfield.cuh"

// Point i of a coset: offset * w^i.
struct Coset {
    u64 offset;
    const u64 *low, *high; // powers of w_n
};
__device__ __forceinline__ u64 coset_point(const Coset &coset, u64 i) {
    return mul_canonical(coset.offset, table_power(coset.low, coset.high, i));
}

// Divides the four sums by their zerofiers. regular = transition + consistency, boundary = initial + terminal.
// Per row of the coset: transition (x - last) / (x^n - 1), consistency 1 / (x^n - 1), initial 1 / (x - 1), terminal
// 1 / (x - last), last = w_n^-1. `zerofier_inverse` is 1 / (x^n - 1). Without `regular` only the boundary is wanted.
KERNEL divide_by_zerofiers(const u64 *initial, const u64 *consistency, const u64 *transition, const u64 *terminal,
                           u64 n, Coset coset, u64 last, u64 zerofier_inverse, u64 *regular, u64 *boundary) {
    for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (u64)gridDim.x * blockDim.x) {
        u64 x = coset_point(coset, i);
        u64 from_first = sub(x, ONE), from_last = sub(x, last);
        u64 both = inverse(mul_canonical(from_first, from_last));
        X a = x_mul_base(x_load(initial, n, i), mul_canonical(both, from_last));
        X b = x_mul_base(x_load(terminal, n, i), mul_canonical(both, from_first));
        X e = x_add(x_canonical(a), x_canonical(b));
        x_store(boundary, n, i, e);
        if (!regular) continue;
        X t = x_mul_base(x_load(transition, n, i), from_last);
        X c = x_add(x_canonical(t), x_load(consistency, n, i));
        x_store(regular, n, i, x_add(x_canonical(x_mul_base(c, zerofier_inverse)), e));
    }
}

// What the reconstruction needs besides the residues.
struct Reconstruction {
    u64 inverse_twiddles[4]; // w_4^-k
    u64 scale[4];            // 1 / (4 * 7^{nt})
    u64 odd[4];              // g_1^{nt}
    u64 minus_half_inverse;  // 1 / (-2 * 7^4n)
    u64 constant;            // 7^4n
};

// sum over j of residue_j * w_4^{-jt} / (4 * 7^{nt}), for t = 0..3
__device__ __forceinline__ void four_point(const u64 r[4], const Reconstruction &k, u64 q[4]) {
#pragma unroll
    for (u32 t = 0; t < 4; t++) {
        Acc s = acc_zero(0);
#pragma unroll
        for (u32 j = 0; j < 4; j++) acc_mul(s, r[j], k.inverse_twiddles[(j * t) & 3]);
        q[t] = mul(acc_value(s), k.scale[t]);
    }
}

// Residues (bit-reversed coefficients, canonical): regular 4 x 3 columns on cosets 0, 2, 4, 6 (boundary included),
// boundary 5 x 3 columns on cosets 0, 2, 4, 6, 1; all of n rows. Gives Q as five blocks of n coefficients, 5 x 3
// columns; block t, place p is coefficient n t + reverse(p).
KERNEL reconstruct_quotient(const u64 *regular, const u64 *boundary, u64 n, Reconstruction k, u64 *quotient) {
    for (u64 p = (u64)blockIdx.x * blockDim.x + threadIdx.x; p < n; p += (u64)gridDim.x * blockDim.x) {
#pragma unroll 1
        for (u32 c = 0; c < 3; c++) {
            u64 r[4], q[4], e[4];
#pragma unroll
            for (u32 j = 0; j < 4; j++) r[j] = boundary[(3 * j + c) * n + p];
            four_point(r, k, e);
            Acc odd = acc_zero(0);
#pragma unroll
            for (u32 t = 0; t < 4; t++) acc_mul(odd, e[t], k.odd[t]);
            u64 e1 = canonical(acc_value(odd));
            u64 h = mul_canonical(sub(boundary[(12 + c) * n + p], e1), k.minus_half_inverse);
#pragma unroll
            for (u32 j = 0; j < 4; j++) r[j] = regular[(3 * j + c) * n + p];
            four_point(r, k, q);
            q[0] = sub(canonical(q[0]), mul_canonical(h, k.constant));
#pragma unroll
            for (u32 t = 0; t < 4; t++) quotient[(3 * t + c) * n + p] = canonical(q[t]);
            quotient[(12 + c) * n + p] = h;
        }
    }
}

// Segments, randomized from the right: s_4 = `random` (num_random elements), s_i[m] = q_{4m+i} - 3^{i+4m} s_{i+1}[m].
// Coefficient m of segment i goes to place reverse(m) of column block i of `low` for m < n, else to row m - n of `tail`,
// which has `tail_rows` rows; both have 5 x 3 columns. powers of 3^4 by table: low/high as in table_power.
KERNEL randomize_segments(const u64 *quotient, u64 n, u32 log_n, const u64 *random, u64 num_random, const u64 *power_low,
                          const u64 *power_high, u64 three, u64 *low, u64 *tail, u64 tail_rows) {
    u64 rows = n + tail_rows;
    for (u64 m = (u64)blockIdx.x * blockDim.x + threadIdx.x; m < rows; m += (u64)gridDim.x * blockDim.x) {
        u64 z4m = table_power(power_low, power_high, m);
        X s = m < num_random ? x_of(random[3 * m], random[3 * m + 1], random[3 * m + 2]) : x_of(0, 0, 0);
        u64 three2 = mul_canonical(three, three);
#pragma unroll 1
        for (int i = 4; i >= 0; i--) {
            if (i < 4) {
                u64 index = 4 * m + i, block = index >> log_n;
                X q = x_of(0, 0, 0);
                if (block < 5) q = x_load(quotient + 3 * block * n, n, bit_reverse((u32)(index & (n - 1)), log_n));
                u64 z = z4m;
                if (i & 1) z = mul_canonical(z, three);
                if (i & 2) z = mul_canonical(z, three2);
                s = x_sub(q, x_canonical(x_mul_base(s, z)));
            }
            if (m < n) x_store(low + 3 * i * n, n, bit_reverse((u32)m, log_n), s);
            else x_store(tail + 3 * i * tail_rows, tail_rows, m - n, s);
        }
    }
}
