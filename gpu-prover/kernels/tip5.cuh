// The Tip5 permutation (https://eprint.iacr.org/2023/107), one thread per state: for the host tests, for consumer
// devices, and as the text that the tensor-core form in tip5.cu is held against.
//
// The S-box looks bytes up in the Montgomery form, as twenty-first does. Elements 0..3 take the look-up, 4..15 x^7.
#pragma once
#include "goldilocks.cuh"
#include "tip5_constants.cuh" // generated: TIP5_MDS_COLUMN, TIP5_ROUND_CONSTANTS (Montgomery form), TIP5_LOOKUP

#define TIP5_STATE 16
#define TIP5_RATE 10
#define TIP5_DIGEST 5
#define TIP5_ROUNDS 5

// any -> any
FN u64 tip5_power(u64 a) {
    u64 x = canonical(a);
    u64 x2 = square_canonical(x);
    u64 x3 = mul_canonical(x2, x);
    u64 x4 = square_canonical(x2);
    return mul_canonical(x3, x4);
}

// low + 2^32 * high for sums below 2^52 -> any. 2^64 = 2^32 - 1 modulo p takes the top of `high` down.
FN u64 tip5_join(u64 low, u64 high) {
    u32 top = hi32(high);
    u64 base = u64_of(lo32(low), lo32(high));
    u64 t = ((u64)(hi32(low) + top) << 32) - top;
    u64 s = base + t;
    return s < t ? s + EPSILON : s;
}

// `lookup` has 256 entries. The state is canonical before and after.
FN void tip5_permutation(u64 state[TIP5_STATE], const u8 *lookup, const u64 *round_constants, const u32 *mds_column) {
#ifdef __CUDA_ARCH__
#pragma unroll 1
#endif
    for (u32 round = 0; round < TIP5_ROUNDS; round++) {
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
        for (u32 i = 0; i < 4; i++) {
            u64 a = canonical(state[i]), b = 0;
            for (u32 k = 0; k < 64; k += 8) b |= (u64)lookup[(a >> k) & 255] << k;
            state[i] = b;
        }
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
        for (u32 i = 4; i < TIP5_STATE; i++) state[i] = tip5_power(state[i]);

        // Rows of the circulant matrix on the halves of the state: 16 products below 2^48 each.
        u64 out[TIP5_STATE];
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
        for (u32 r = 0; r < TIP5_STATE; r++) {
            u64 rc = round_constants[TIP5_STATE * round + r];
            u64 low = lo32(rc), high = hi32(rc);
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
            for (u32 c = 0; c < TIP5_STATE; c++) {
                u64 m = mds_column[(r - c) & 15];
                low += m * lo32(state[c]);
                high += m * hi32(state[c]);
            }
            out[r] = tip5_join(low, high);
        }
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
        for (u32 i = 0; i < TIP5_STATE; i++) state[i] = out[i];
    }
    for (u32 i = 0; i < TIP5_STATE; i++) state[i] = canonical(state[i]);
}
