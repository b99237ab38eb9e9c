// Inner products of field elements by products of bytes, as tensor cores make them: the parts that a host can run.
//
// An element is eight bytes, so a sum of products of elements is 64 sums of products of bytes, each with a place value of
// 256^(i + j). Bytes of 2^15 products add up in 31 bits (255 * 255 * 2^15 < 2^31), exactly.
//
// THE FRAGMENTS of mma.m16n8k32 for bytes, lane (g, t) = (lane / 4, lane % 4): it brings rows g and g + 8 of A (two columns
// of coefficients, byte g of each) and column g of B (byte g of the powers of one point), eight places of k each, and gets
// columns 2t and 2t + 1 of rows g and g + 8. Which places of k a lane brings does not matter as long as A and B agree: here
// they are eight that follow each other in memory, so that bytes g of eight elements are one word of A or B.
#pragma once
#include "goldilocks.cuh"

// Four of the eight bytes of (b : a), as the nibbles of `selector` say, lowest first.
FN u32 pick_bytes(u32 a, u32 b, u32 selector) {
#ifdef __CUDA_ARCH__
    return __byte_perm(a, b, selector);
#else
    u64 both = u64_of(a, b);
    u32 r = 0;
    for (u32 i = 0; i < 4; i++) r |= (u32)(both >> 8 * (selector >> 4 * i & 7) & 255) << 8 * i;
    return r;
#endif
}

// out[i]: byte i of each of a, b, c, d.
FN void transpose_4x4(u32 a, u32 b, u32 c, u32 d, u32 *out) {
    u32 ab_low = pick_bytes(a, b, 0x5140), cd_low = pick_bytes(c, d, 0x5140);
    u32 ab_high = pick_bytes(a, b, 0x7362), cd_high = pick_bytes(c, d, 0x7362);
    out[0] = pick_bytes(ab_low, cd_low, 0x5410);
    out[1] = pick_bytes(ab_low, cd_low, 0x7632);
    out[2] = pick_bytes(ab_high, cd_high, 0x5410);
    out[3] = pick_bytes(ab_high, cd_high, 0x7632);
}

// out[i]: byte i of each of eight words.
FN void transpose_8x8(const u64 *in, u64 *out) {
    u32 first[8], second[8];
#pragma unroll
    for (u32 half = 0; half < 8; half += 4) {
        transpose_4x4(half ? hi32(in[0]) : lo32(in[0]), half ? hi32(in[1]) : lo32(in[1]),
                      half ? hi32(in[2]) : lo32(in[2]), half ? hi32(in[3]) : lo32(in[3]), first + half);
        transpose_4x4(half ? hi32(in[4]) : lo32(in[4]), half ? hi32(in[5]) : lo32(in[5]),
                      half ? hi32(in[6]) : lo32(in[6]), half ? hi32(in[7]) : lo32(in[7]), second + half);
    }
#pragma unroll
    for (u32 i = 0; i < 8; i++) out[i] = u64_of(first[i], second[i]);
}

// 256^bytes: a plain number modulo p and not in Montgomery form, so that a product with it is the reduction that a sum of
// products of Montgomery forms needs. Canonical.
FN u64 place_value(u32 bytes) {
    u64 value = 1;
    for (u32 i = 0; i < bytes; i++) value = mul_canonical(value, 256 * ONE);
    return value;
}

// Two sums of byte products whose places are next to each other.
FN u64 join_places(u32 low, u32 high) { return low + ((u64)high << 8); }
