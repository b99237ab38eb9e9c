// The field of p = 2^64 - 2^32 + 1 elements, in Montgomery form with R = 2^64: the bytes of twenty-first's
// `BFieldElement`, so that tables cross the bus unconverted and Tip5's look-ups see the bytes that they are defined on.
//
// A u64 here is *canonical* (below p) or *any* (below 2^64, congruent). 2^64 = 2^32 - 1 modulo p makes "any" cheap: one
// correction by EPSILON after a carry or a borrow. Every function says what it takes and gives. Canonical is needed
// where bytes are looked up, compared or revealed, and as one operand of the sums and differences below.
#pragma once
#include "platform.cuh"

#define P 0xffffffff00000001ull
#define EPSILON 0xffffffffull // 2^64 mod p
#define ONE 0xffffffffull     // R mod p: the Montgomery form of 1

// any -> canonical
FN u64 canonical(u64 a) {
    u64 t = a + EPSILON; // wraps exactly when a >= p
    return t < a ? t : a;
}

// any + canonical -> any. The second operand keeps the corrected sum below 2^64.
FN u64 add_lazy(u64 a, u64 b) {
#ifdef __CUDA_ARCH__
    u32 r0, r1;
    asm("{\n\t.reg .u32 m;\n\t"
        "add.cc.u32 %0, %2, %4;\n\t"
        "addc.cc.u32 %1, %3, %5;\n\t"
        "addc.u32 m, 0, 0;\n\t"
        "neg.s32 m, m;\n\t"
        "add.cc.u32 %0, %0, m;\n\t"
        "addc.u32 %1, %1, 0;\n\t}"
        : "=&r"(r0), "=&r"(r1)
        : "r"(lo32(a)), "r"(hi32(a)), "r"(lo32(b)), "r"(hi32(b)));
    return u64_of(r0, r1);
#else
    u64 s = a + b;
    return s < a ? s + EPSILON : s;
#endif
}

// any - canonical -> any
FN u64 sub_lazy(u64 a, u64 b) {
#ifdef __CUDA_ARCH__
    u32 r0, r1;
    asm("{\n\t.reg .u32 m;\n\t"
        "sub.cc.u32 %0, %2, %4;\n\t"
        "subc.cc.u32 %1, %3, %5;\n\t"
        "subc.u32 m, 0, 0;\n\t"
        "sub.cc.u32 %0, %0, m;\n\t"
        "subc.u32 %1, %1, 0;\n\t}"
        : "=&r"(r0), "=&r"(r1)
        : "r"(lo32(a)), "r"(hi32(a)), "r"(lo32(b)), "r"(hi32(b)));
    return u64_of(r0, r1);
#else
    u64 d = a - b;
    return a < b ? d - EPSILON : d;
#endif
}

// canonical + canonical -> canonical
FN u64 add(u64 a, u64 b) {
    u64 t = a - (P - b);
    return a < P - b ? t + P : t;
}

// canonical - canonical -> canonical
FN u64 sub(u64 a, u64 b) {
    u64 t = a - b;
    return a < b ? t + P : t;
}

// canonical -> canonical
FN u64 neg(u64 a) { return a == 0 ? 0 : P - a; }

// any -> any
FN u64 neg_any(u64 a) {
    u64 t = P - a;
    return a > P ? t - EPSILON : t;
}

// (hi : lo) / 2^64 modulo p, for hi < p canonical, for any hi < 2^64 any.
FN u64 montgomery_reduce(u64 hi, u64 lo) {
#ifdef __CUDA_ARCH__
    u32 r0, r1;
    asm("{\n\t.reg .u32 a1, c, m;\n\t"
        "add.cc.u32 a1, %3, %2;\n\t"
        "addc.cc.u32 %0, %4, a1;\n\t"
        "addc.cc.u32 %1, %5, 0;\n\t"
        "addc.u32 c, 0, 0;\n\t"
        "sub.cc.u32 %0, %0, %2;\n\t"
        "subc.cc.u32 %1, %1, a1;\n\t"
        "subc.u32 m, c, 0;\n\t"
        "sub.cc.u32 %0, %0, m;\n\t"
        "subc.u32 %1, %1, 0;\n\t}"
        : "=&r"(r0), "=&r"(r1)
        : "r"(lo32(lo)), "r"(hi32(lo)), "r"(lo32(hi)), "r"(hi32(hi)));
    return u64_of(r0, r1);
#else
    u64 a = lo + (lo << 32);
    u64 e = a < lo;
    u64 b = a - (a >> 32) - e;
    u64 r = hi - b;
    return hi < b ? r - EPSILON : r;
#endif
}

// any * any -> any; canonical when one operand is canonical.
FN u64 mul(u64 a, u64 b) {
#ifdef __CUDA_ARCH__
    // The product's four limbs by two carry chains, then montgomery_reduce in the same block: with both in one
    // asm statement ptxas fuses each mad.lo/madc.hi pair into one IMAD.WIDE and needs no moves between them.
    u32 r0, r1;
    asm("{\n\t.reg .u32 x0, x1, x2, x3, a1, c, m;\n\t"
        "mul.lo.u32 x0, %2, %4;\n\t"
        "mul.hi.u32 x1, %2, %4;\n\t"
        "mul.lo.u32 x2, %3, %5;\n\t"
        "mul.hi.u32 x3, %3, %5;\n\t"
        "mad.lo.cc.u32 x1, %2, %5, x1;\n\t"
        "madc.hi.cc.u32 x2, %2, %5, x2;\n\t"
        "addc.u32 x3, x3, 0;\n\t"
        "mad.lo.cc.u32 x1, %3, %4, x1;\n\t"
        "madc.hi.cc.u32 x2, %3, %4, x2;\n\t"
        "addc.u32 x3, x3, 0;\n\t"
        "add.cc.u32 a1, x1, x0;\n\t"
        "addc.cc.u32 %0, x2, a1;\n\t"
        "addc.cc.u32 %1, x3, 0;\n\t"
        "addc.u32 c, 0, 0;\n\t"
        "sub.cc.u32 %0, %0, x0;\n\t"
        "subc.cc.u32 %1, %1, a1;\n\t"
        "subc.u32 m, c, 0;\n\t"
        "sub.cc.u32 %0, %0, m;\n\t"
        "subc.u32 %1, %1, 0;\n\t}"
        : "=&r"(r0), "=&r"(r1)
        : "r"(lo32(a)), "r"(hi32(a)), "r"(lo32(b)), "r"(hi32(b)));
    return u64_of(r0, r1);
#else
    u128 x = (u128)a * b;
    return montgomery_reduce((u64)(x >> 64), (u64)x);
#endif
}

// canonical * canonical -> canonical, one instruction less: hi < p leaves no carry to keep against the borrow.
FN u64 mul_canonical(u64 a, u64 b) {
#ifdef __CUDA_ARCH__
    u32 r0, r1;
    asm("{\n\t.reg .u32 x0, x1, x2, x3, a1, m;\n\t"
        "mul.lo.u32 x0, %2, %4;\n\t"
        "mul.hi.u32 x1, %2, %4;\n\t"
        "mul.lo.u32 x2, %3, %5;\n\t"
        "mul.hi.u32 x3, %3, %5;\n\t"
        "mad.lo.cc.u32 x1, %2, %5, x1;\n\t"
        "madc.hi.cc.u32 x2, %2, %5, x2;\n\t"
        "addc.u32 x3, x3, 0;\n\t"
        "mad.lo.cc.u32 x1, %3, %4, x1;\n\t"
        "madc.hi.cc.u32 x2, %3, %4, x2;\n\t"
        "addc.u32 x3, x3, 0;\n\t"
        "add.cc.u32 a1, x1, x0;\n\t"
        "addc.cc.u32 %0, x2, a1;\n\t"
        "addc.u32 %1, x3, 0;\n\t"
        "sub.cc.u32 %0, %0, x0;\n\t"
        "subc.cc.u32 %1, %1, a1;\n\t"
        "subc.u32 m, 0, 0;\n\t"
        "sub.cc.u32 %0, %0, m;\n\t"
        "subc.u32 %1, %1, 0;\n\t}"
        : "=&r"(r0), "=&r"(r1)
        : "r"(lo32(a)), "r"(hi32(a)), "r"(lo32(b)), "r"(hi32(b)));
    return u64_of(r0, r1);
#else
    return mul(a, b);
#endif
}

// canonical^2 -> canonical. Three wide products instead of four: they are the slow ones (half the rate of everything
// else on sm_90), and doubling the mixed one takes additions. `mul.wide` would save the low products, but moves more work
// to the adders, which are as busy (measured on an H100 in the row hash: 2.96 G permutations/s, 2.89 with mul.wide, 2.93
// with mul_canonical).
FN u64 square_canonical(u64 a) {
#ifdef __CUDA_ARCH__
    u32 r0, r1;
    asm("{\n\t.reg .u32 x0, x1, x2, x3, c0, c1, c2, a1, m;\n\t"
        "mul.lo.u32 x0, %2, %2;\n\t"
        "mul.hi.u32 x1, %2, %2;\n\t"
        "mul.lo.u32 x2, %3, %3;\n\t"
        "mul.hi.u32 x3, %3, %3;\n\t"
        "mul.lo.u32 c0, %2, %3;\n\t"
        "mul.hi.u32 c1, %2, %3;\n\t"
        "add.cc.u32 c0, c0, c0;\n\t"
        "addc.cc.u32 c1, c1, c1;\n\t"
        "addc.u32 c2, 0, 0;\n\t"
        "add.cc.u32 x1, x1, c0;\n\t"
        "addc.cc.u32 x2, x2, c1;\n\t"
        "addc.u32 x3, x3, c2;\n\t"
        "add.cc.u32 a1, x1, x0;\n\t"
        "addc.cc.u32 %0, x2, a1;\n\t"
        "addc.u32 %1, x3, 0;\n\t"
        "sub.cc.u32 %0, %0, x0;\n\t"
        "subc.cc.u32 %1, %1, a1;\n\t"
        "subc.u32 m, 0, 0;\n\t"
        "sub.cc.u32 %0, %0, m;\n\t"
        "subc.u32 %1, %1, 0;\n\t}"
        : "=&r"(r0), "=&r"(r1)
        : "r"(lo32(a)), "r"(hi32(a)));
    return u64_of(r0, r1);
#else
    return mul(a, a);
#endif
}

// any^e -> any
FN u64 pow_u64(u64 base, u64 e) {
    u64 r = ONE;
    for (; e; e >>= 1) {
        if (e & 1) r = mul(r, base);
        base = mul(base, base);
    }
    return r;
}

// Squares `a` n times.
FN u64 square_times(u64 a, u32 n) {
    for (u32 i = 0; i < n; i++) a = mul(a, a);
    return a;
}

// a^(p-2): the inverse, and 0 for 0. any -> canonical. 63 squarings and 9 products.
FN u64 inverse(u64 a) {
    // p - 2 = (2^32 - 2) * 2^32 + (2^32 - 1) = 2^64 - 2^32 - 1: 31 ones, a zero, 32 ones.
    u64 e2 = mul(square_times(a, 1), a);          // 2 ones
    u64 e3 = mul(square_times(e2, 1), a);         // 3
    u64 e6 = mul(square_times(e3, 3), e3);        // 6
    u64 e12 = mul(square_times(e6, 6), e6);       // 12
    u64 e24 = mul(square_times(e12, 12), e12);    // 24
    u64 e30 = mul(square_times(e24, 6), e6);      // 30
    u64 e31 = mul(square_times(e30, 1), a);       // 31
    u64 e63 = mul(square_times(e31, 32), e31);    // 31 ones, a zero, 31 ones
    return canonical(mul(square_times(e63, 1), a)); // 31 ones, a zero, 32 ones
}
