// Sums of products that are reduced once. A Goldilocks product costs 4 multiply-adds and a reduction of twice that; in
// constraint polynomials and inner products most products only meet in a sum, and Montgomery reduction is linear.
//
// Acc holds an integer below 2^160 as two carry chains: `even` has limbs 0..4 and takes a0*b0 and a1*b1, `odd` has limbs
// 1..3 and takes the cross products, so that no product waits for the carries of another. A single value v enters as
// v * 2^64. Subtraction of single values never goes below zero if `acc_zero(k)` counted them: it starts at 2*k*p*2^64
// (twice, because a value may be up to 2^64 - 1 > p).
#pragma once
#include "goldilocks.cuh"

struct Acc {
#ifdef __CUDA_ARCH__
    u32 e0, e1, e2, e3, e4, o1, o2, o3;
#else
    u128 low;
    u64 high;
#endif
};

// Starts a sum from which `subtractions` values (not products) will be taken away.
FN Acc acc_zero(u32 subtractions) {
    Acc s;
#ifdef __CUDA_ARCH__
    // 2k * p = 2k * 2^64 - 2k * (2^32 - 1)
    u64 low = 0ull - 2 * (u64)subtractions * EPSILON;
    s.e0 = s.e1 = 0;
    s.e2 = lo32(low);
    s.e3 = hi32(low);
    s.e4 = subtractions == 0 ? 0 : 2 * subtractions - 1;
    s.o1 = s.o2 = s.o3 = 0;
#else
    u128 bias = (u128)(2 * subtractions) * P;
    s.low = bias << 64;
    s.high = (u64)(bias >> 64);
#endif
    return s;
}

// sum += a * b, both any
FN void acc_mul(Acc &s, u64 a, u64 b) {
#ifdef __CUDA_ARCH__
    // "+&r": an operand that is updated before the last input is read must not share a register with an input.
    asm("mad.lo.cc.u32 %0, %8, %10, %0;\n\t"
        "madc.hi.cc.u32 %1, %8, %10, %1;\n\t"
        "madc.lo.cc.u32 %2, %9, %11, %2;\n\t"
        "madc.hi.cc.u32 %3, %9, %11, %3;\n\t"
        "addc.u32 %4, %4, 0;\n\t"
        "mad.lo.cc.u32 %5, %8, %11, %5;\n\t"
        "madc.hi.cc.u32 %6, %8, %11, %6;\n\t"
        "addc.u32 %7, %7, 0;\n\t"
        "mad.lo.cc.u32 %5, %9, %10, %5;\n\t"
        "madc.hi.cc.u32 %6, %9, %10, %6;\n\t"
        "addc.u32 %7, %7, 0;"
        : "+&r"(s.e0), "+&r"(s.e1), "+&r"(s.e2), "+&r"(s.e3), "+&r"(s.e4), "+&r"(s.o1), "+&r"(s.o2), "+&r"(s.o3)
        : "r"(lo32(a)), "r"(hi32(a)), "r"(lo32(b)), "r"(hi32(b)));
#else
    u128 x = (u128)a * b;
    s.low += x;
    s.high += s.low < x;
#endif
}

// sum += a, any
FN void acc_add(Acc &s, u64 a) {
#ifdef __CUDA_ARCH__
    asm("add.cc.u32 %0, %0, %3;\n\t"
        "addc.cc.u32 %1, %1, %4;\n\t"
        "addc.u32 %2, %2, 0;"
        : "+&r"(s.e2), "+&r"(s.e3), "+&r"(s.e4)
        : "r"(lo32(a)), "r"(hi32(a)));
#else
    u128 x = (u128)a << 64;
    s.low += x;
    s.high += s.low < x;
#endif
}

// sum -= a, any; acc_zero must have counted it.
FN void acc_sub(Acc &s, u64 a) {
#ifdef __CUDA_ARCH__
    asm("sub.cc.u32 %0, %0, %3;\n\t"
        "subc.cc.u32 %1, %1, %4;\n\t"
        "subc.u32 %2, %2, 0;"
        : "+&r"(s.e2), "+&r"(s.e3), "+&r"(s.e4)
        : "r"(lo32(a)), "r"(hi32(a)));
#else
    u128 x = (u128)a << 64;
    s.high -= s.low < x;
    s.low -= x;
#endif
}

// The sum modulo p, any.
FN u64 acc_value(const Acc &s) {
#ifdef __CUDA_ARCH__
    u32 r0, r1;
    asm("{\n\t.reg .u32 x1, x2, x3, x4, a1, c, m;\n\t"
        "add.cc.u32 x1, %3, %7;\n\t"
        "addc.cc.u32 x2, %4, %8;\n\t"
        "addc.cc.u32 x3, %5, %9;\n\t"
        "addc.u32 x4, %6, 0;\n\t"
        // (x3:x2) += x4 * (2^32 - 1); a carry of that is 2^64 again
        "sub.cc.u32 a1, 0, x4;\n\t"
        "subc.u32 c, x4, 0;\n\t"
        "add.cc.u32 x2, x2, a1;\n\t"
        "addc.cc.u32 x3, x3, c;\n\t"
        "addc.u32 m, 0, 0;\n\t"
        "neg.s32 m, m;\n\t"
        "add.cc.u32 x2, x2, m;\n\t"
        "addc.u32 x3, x3, 0;\n\t"
        // Montgomery reduction of (x3:x2:x1:x0)
        "add.cc.u32 a1, x1, %2;\n\t"
        "addc.cc.u32 %0, x2, a1;\n\t"
        "addc.cc.u32 %1, x3, 0;\n\t"
        "addc.u32 c, 0, 0;\n\t"
        "sub.cc.u32 %0, %0, %2;\n\t"
        "subc.cc.u32 %1, %1, a1;\n\t"
        "subc.u32 m, c, 0;\n\t"
        "sub.cc.u32 %0, %0, m;\n\t"
        "subc.u32 %1, %1, 0;\n\t}"
        : "=&r"(r0), "=&r"(r1)
        : "r"(s.e0), "r"(s.e1), "r"(s.e2), "r"(s.e3), "r"(s.e4), "r"(s.o1), "r"(s.o2), "r"(s.o3));
    return u64_of(r0, r1);
#else
    u64 hi = (u64)(s.low >> 64);
    u64 t = hi + s.high * EPSILON;
    if (t < hi) t += EPSILON;
    return montgomery_reduce(t, (u64)s.low);
#endif
}

// Sums and differences of single values in 96 bits, folded once.
struct Sum {
    u64 low;
    u32 high;
};

// Starts a sum from which `subtractions` values will be taken away: at subtractions * 2p.
FN Sum sum_zero(u32 subtractions) {
    Sum s;
    s.low = 0ull - 2 * (u64)subtractions * EPSILON;
    s.high = subtractions == 0 ? 0 : 2 * subtractions - 1;
    return s;
}
FN void sum_add(Sum &s, u64 a) {
#ifdef __CUDA_ARCH__
    u32 l = lo32(s.low), h = hi32(s.low);
    asm("add.cc.u32 %0, %0, %3;\n\taddc.cc.u32 %1, %1, %4;\n\taddc.u32 %2, %2, 0;"
        : "+&r"(l), "+&r"(h), "+&r"(s.high)
        : "r"(lo32(a)), "r"(hi32(a)));
    s.low = u64_of(l, h);
#else
    s.low += a;
    s.high += s.low < a;
#endif
}
FN void sum_sub(Sum &s, u64 a) {
#ifdef __CUDA_ARCH__
    u32 l = lo32(s.low), h = hi32(s.low);
    asm("sub.cc.u32 %0, %0, %3;\n\tsubc.cc.u32 %1, %1, %4;\n\tsubc.u32 %2, %2, 0;"
        : "+&r"(l), "+&r"(h), "+&r"(s.high)
        : "r"(lo32(a)), "r"(hi32(a)));
    s.low = u64_of(l, h);
#else
    s.high -= s.low < a;
    s.low -= a;
#endif
}
FN u64 sum_value(const Sum &s) {
    u64 t = s.low + (u64)s.high * EPSILON;
    return t < s.low ? t + EPSILON : t;
}
