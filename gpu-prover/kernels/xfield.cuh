// The cubic extension by x^3 - x + 1: twenty-first's `XFieldElement`, coefficients in rising order.
//
// Columns of extension elements lie on the device as three base columns. The product x * w is a 3x3 matrix of w's
// coefficients applied to x; XMat holds the seven different entries of that matrix, so that a factor that is used for
// every row (challenge, weight, point) is prepared once on the host and each product is nine multiply-adds.
#pragma once
#include "accumulator.cuh"

struct X {
    u64 c0, c1, c2;
};

// All entries canonical: w0, w1, w2, -w2, w0 + w2, -w1, w1 - w2. The order is part of the host's interface.
struct XMat {
    u64 w0, w1, w2, n2, s02, n1, d12;
};

struct AccX {
    Acc c0, c1, c2;
};

FN X x_of(u64 c0, u64 c1, u64 c2) {
    X r = {c0, c1, c2};
    return r;
}
FN X x_canonical(const X &a) { return x_of(canonical(a.c0), canonical(a.c1), canonical(a.c2)); }

// canonical operands and results
FN X x_add(const X &a, const X &b) { return x_of(add(a.c0, b.c0), add(a.c1, b.c1), add(a.c2, b.c2)); }
FN X x_sub(const X &a, const X &b) { return x_of(sub(a.c0, b.c0), sub(a.c1, b.c1), sub(a.c2, b.c2)); }

// any -> canonical entries
FN XMat x_matrix(const X &a) {
    X w = x_canonical(a);
    XMat m = {w.c0, w.c1, w.c2, neg(w.c2), add(w.c0, w.c2), neg(w.c1), sub(w.c1, w.c2)};
    return m;
}

FN AccX accx_zero(u32 subtractions) {
    AccX s = {acc_zero(subtractions), acc_zero(subtractions), acc_zero(subtractions)};
    return s;
}

// sum += x * w, x any
FN void accx_mul(AccX &s, const X &x, const XMat &w) {
    acc_mul(s.c0, x.c0, w.w0);
    acc_mul(s.c0, x.c1, w.n2);
    acc_mul(s.c0, x.c2, w.n1);
    acc_mul(s.c1, x.c0, w.w1);
    acc_mul(s.c1, x.c1, w.s02);
    acc_mul(s.c1, x.c2, w.d12);
    acc_mul(s.c2, x.c0, w.w2);
    acc_mul(s.c2, x.c1, w.w1);
    acc_mul(s.c2, x.c2, w.s02);
}

// sum += x * b for a base-field b, any
FN void accx_mul_base(AccX &s, const X &x, u64 b) {
    acc_mul(s.c0, x.c0, b);
    acc_mul(s.c1, x.c1, b);
    acc_mul(s.c2, x.c2, b);
}

FN void accx_add(AccX &s, const X &x) {
    acc_add(s.c0, x.c0);
    acc_add(s.c1, x.c1);
    acc_add(s.c2, x.c2);
}
FN void accx_sub(AccX &s, const X &x) {
    acc_sub(s.c0, x.c0);
    acc_sub(s.c1, x.c1);
    acc_sub(s.c2, x.c2);
}

FN X accx_value(const AccX &s) { return x_of(acc_value(s.c0), acc_value(s.c1), acc_value(s.c2)); }

// any * any -> any
FN X x_mul_matrix(const X &a, const XMat &w) {
    AccX s = accx_zero(0);
    accx_mul(s, a, w);
    return accx_value(s);
}
FN X x_mul(const X &a, const X &b) { return x_mul_matrix(a, x_matrix(b)); }

// any * any -> any
FN X x_mul_base(const X &a, u64 b) { return x_of(mul(a.c0, b), mul(a.c1, b), mul(a.c2, b)); }

// The inverse, and 0 for 0. any -> canonical.
//
// With M the matrix of a (columns a, a*x, a*x^2), a * b = 1 says M b = (1, 0, 0): Cramer's rule, one inversion of det M.
FN X x_inverse(const X &a) {
    XMat m = x_matrix(a);
    // rows: (w0, -w2, -w1), (w1, w0+w2, w1-w2), (w2, w1, w0+w2)
    u64 k0 = sub(mul_canonical(m.s02, m.s02), mul_canonical(m.d12, m.w1));
    u64 k1 = sub(mul_canonical(m.d12, m.w2), mul_canonical(m.w1, m.s02));
    u64 k2 = sub(mul_canonical(m.w1, m.w1), mul_canonical(m.s02, m.w2));
    u64 det = add(mul_canonical(m.w0, k0), add(mul_canonical(m.n2, k1), mul_canonical(m.n1, k2)));
    u64 d = inverse(det);
    return x_of(mul_canonical(k0, d), mul_canonical(k1, d), mul_canonical(k2, d));
}

// Element `i` of an extension column whose three base columns start at `column` and lie `stride` apart.
FN X x_load(const u64 *column, u64 stride, u64 i) {
    return x_of(column[i], column[stride + i], column[2 * stride + i]);
}
FN void x_store(u64 *column, u64 stride, u64 i, const X &a) {
    column[i] = a.c0;
    column[stride + i] = a.c1;
    column[2 * stride + i] = a.c2;
}
