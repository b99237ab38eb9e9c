// What generated constraint and fill kernels are made of.
//
// Columns are column-major with `stride` rows; an auxiliary column is three base columns. A constraint kernel adds the
// weighted sum of its constraints on one row to `sums`; the zerofiers are divided out later, once per kind.
#pragma once
#include "xfield.cuh"

#define AIR_THREADS 128

// 63 challenges, 611 weights, and the challenges' negatives, as matrices: every product by one of them is nine
// multiply-adds with operands that come from constant memory. Each module has its own copy; the host fills all of them.
#define AIR_CONSTANTS (63 + 611 + 63)
#ifdef __CUDACC__
__constant__ XMat air_constants[AIR_CONSTANTS];
#else
extern "C" XMat air_constants[AIR_CONSTANTS];
#endif

FN const XMat &challenge(u32 i) { return air_constants[i]; }
FN X challenge_value(u32 i) { return x_of(air_constants[i].w0, air_constants[i].w1, air_constants[i].w2); }

FN const XMat &challenge_negated(u32 i) { return challenge(63 + 611 + i); }
FN X challenge_negated_value(u32 i) { return challenge_value(63 + 611 + i); }

struct SumX {
    Sum c0, c1, c2;
};
FN SumX sumx_zero(u32 subtractions) {
    SumX s = {sum_zero(subtractions), sum_zero(subtractions), sum_zero(subtractions)};
    return s;
}
FN void sumx_add(SumX &s, const X &x) {
    sum_add(s.c0, x.c0);
    sum_add(s.c1, x.c1);
    sum_add(s.c2, x.c2);
}
FN void sumx_sub(SumX &s, const X &x) {
    sum_sub(s.c0, x.c0);
    sum_sub(s.c1, x.c1);
    sum_sub(s.c2, x.c2);
}
FN X sumx_value(const SumX &s) { return x_of(sum_value(s.c0), sum_value(s.c1), sum_value(s.c2)); }
FN X x_neg_any(const X &a) { return x_of(neg_any(a.c0), neg_any(a.c1), neg_any(a.c2)); }

// sum += b * w for a base-field b
FN void accx_mul_weight(AccX &s, u64 b, const XMat &w) {
    acc_mul(s.c0, b, w.w0);
    acc_mul(s.c1, b, w.w1);
    acc_mul(s.c2, b, w.w2);
}

// sum += a * c for a plain integer c < 2^16: no Montgomery factor, so the product enters one limb pair higher.
FN void acc_mul_small(Acc &s, u64 a, u32 c) {
#ifdef __CUDA_ARCH__
    asm("mad.lo.cc.u32 %0, %3, %5, %0;\n\t"
        "madc.hi.cc.u32 %1, %3, %5, %1;\n\t"
        "addc.u32 %2, %2, 0;\n\t"
        "mad.lo.cc.u32 %1, %4, %5, %1;\n\t"
        "madc.hi.u32 %2, %4, %5, %2;"
        : "+&r"(s.e2), "+&r"(s.e3), "+&r"(s.e4)
        : "r"(lo32(a)), "r"(hi32(a)), "r"(c));
#else
    u128 x = (u128)a * c;
    u128 low = x << 64;
    s.low += low;
    s.high += (u64)(x >> 64) + (s.low < low);
#endif
}

// Element of column `c`, counted from `at`. The compiler may neither merge the load with an equal one further up (a
// register held across a kernel costs more than another look at a cache line that is already there), nor see how the
// address is made: it would derive addresses from each other and hold dozens of them. Fill kernels read what they have
// just written, which only an ordinary load may do.
FN u64 load_column(const u64 *at, u64 stride, u32 c) {
#if defined(__CUDA_ARCH__) && !defined(AIR_FILL)
    u64 r;
    asm volatile("{\n\t.reg .u64 p;\n\tmad.wide.u32 p, %2, %3, %1;\n\tld.global.nc.u64 %0, [p];\n\t}"
                 : "=l"(r)
                 : "l"(at), "r"(c), "r"((u32)stride * 8));
    return r;
#else
    return at[c * stride];
#endif
}
FN X load_column_x(const u64 *at, u64 stride, u32 c) {
    return x_of(load_column(at, stride, 3 * c), load_column(at, stride, 3 * c + 1), load_column(at, stride, 3 * c + 2));
}

// `nothing` is 0, which the compiler cannot know.
#define AIR_PARAMETERS const u64 *main_columns, const u64 *aux_columns, u64 stride, u64 row, u64 next_row, u64 nothing
#define AIR_ARGUMENTS main_columns, aux_columns, stride, row, next_row, nothing
#ifdef AIR_FILL
#define AIR_APART
#else
#define AIR_APART main_columns += nothing, aux_columns += nothing
#endif
#define main_here(c) load_column(main_columns + row, stride, c)
#define main_next(c) load_column(main_columns + next_row, stride, c)
#define aux_here(c) load_column_x(aux_columns + row, stride, c)
#define aux_next(c) load_column_x(aux_columns + next_row, stride, c)

// sums: 3 base columns, `stride` apart. The first kernel of a kind writes, the others add.
#ifdef __CUDACC__
#define AIR_KERNEL(name)                                                                                               \
    KERNEL __launch_bounds__(AIR_THREADS, 3) name(const u64 *main_columns, const u64 *aux_columns, u64 stride, u64 *sums, \
                                               u32 first, u64 nothing) {                                               \
        u64 row = (u64)blockIdx.x * AIR_THREADS + threadIdx.x;                                                         \
        if (row >= stride) return;                                                                                     \
        u64 next_row = row + 1 == stride ? 0 : row + 1;                                                                \
        X value = x_canonical(air_row(AIR_ARGUMENTS));                                                                 \
        if (!first) value = x_add(value, x_load(sums, stride, row));                                                   \
        x_store(sums, stride, row, value);                                                                             \
    }
#else
#define AIR_KERNEL(name)                                                                                               \
    extern "C" void name(const u64 *main_columns, const u64 *aux_columns, u64 stride, u64 row, u64 *value) {           \
        u64 next_row = row + 1 == stride ? 0 : row + 1, nothing = 0;                                                   \
        X x = x_canonical(air_row(AIR_ARGUMENTS));                                                                     \
        value[0] = x.c0, value[1] = x.c1, value[2] = x.c2;                                                             \
    }
#endif

// Fill kernels write columns of the table that they read.
#define FILL_PARAMETERS u64 *main_columns, u64 *aux_columns, u64 stride, u64 row, u64 next_row
#define FILL_ARGUMENTS main_columns, aux_columns, stride, row, next_row
#define store_main(c, value) main_columns[(u64)(c) * stride + row] = canonical(value)
#define store_aux(c, value) x_store(aux_columns + (u64)(3 * (c)) * stride, stride, row, x_canonical(value))

// Rows that have no next row keep what they hold if `last` excludes them: the host clears them beforehand.
#ifdef __CUDACC__
#define FILL_KERNEL(name)                                                                                              \
    KERNEL __launch_bounds__(AIR_THREADS) name(u64 *main_columns, u64 *aux_columns, u64 stride, u64 rows) {            \
        u64 row = (u64)blockIdx.x * AIR_THREADS + threadIdx.x;                                                         \
        if (row >= rows) return;                                                                                       \
        u64 next_row = row + 1;                                                                                        \
        fill_row(FILL_ARGUMENTS);                                                                                       \
    }
#else
#define FILL_KERNEL(name)                                                                                              \
    extern "C" void name(u64 *main_columns, u64 *aux_columns, u64 stride, u64 row) {                                   \
        u64 next_row = row + 1;                                                                                        \
        fill_row(FILL_ARGUMENTS);                                                                                       \
    }
#endif
