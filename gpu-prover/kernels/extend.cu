// The auxiliary table's 49 linked columns: each row's contribution (`extend.cuh`), then prefix scans over the rows.
//
// A scan takes three launches for all columns of a kind: every block composes the contributions of its tile of rows; one
// block a column composes those totals and leaves the value before each tile; every block then writes its tile's values.
// Composition is associative but, for affine maps, not commutative: all steps keep the order of rows.
#include "extend.cuh"

#define THREADS 256
#define ROWS_PER_THREAD 4
#define TILE (THREADS * ROWS_PER_THREAD)

#define EXTEND_KERNEL(table)                                                                                           \
    KERNEL __launch_bounds__(THREADS) extend_##table(const u64 *main, u64 *aux, u64 *factors, u64 stride) {            \
        u64 row = (u64)blockIdx.x * THREADS + threadIdx.x;                                                             \
        if (row >= stride) return;                                                                                     \
        Extension e = {main, aux, factors, stride};                                                                    \
        extend_##table##_row(e, row);                                                                                  \
    }

EXTEND_KERNEL(program)
EXTEND_KERNEL(processor)
EXTEND_KERNEL(op_stack)
EXTEND_KERNEL(ram)
EXTEND_KERNEL(jump_stack)
EXTEND_KERNEL(hash)
EXTEND_KERNEL(cascade)
EXTEND_KERNEL(lookup)
EXTEND_KERNEL(u32)
EXTEND_KERNEL(late)

enum Kind { SUM, PRODUCT, MAP };

// The affine map x -> factor x + addend; a sum has no use for the factor, a product none for the addend.
struct Map {
    X factor, addend;
};

template <Kind KIND> FN Map identity() {
    Map m = {x_one(), x_zero()};
    return m;
}

// First `a`, then `b`.
template <Kind KIND> FN Map then(const Map &a, const Map &b) {
    Map m = a;
    if (KIND == SUM) m.addend = x_add(a.addend, b.addend);
    if (KIND == PRODUCT) m.factor = x_product(a.factor, b.factor);
    if (KIND == MAP) {
        XMat w = x_matrix(b.factor);
        m.factor = x_canonical(x_mul_matrix(a.factor, w));
        m.addend = x_add(x_canonical(x_mul_matrix(a.addend, w)), b.addend);
    }
    return m;
}

template <Kind KIND> FN X apply(const Map &m, const X &x) {
    if (KIND == SUM) return x_add(x, m.addend);
    if (KIND == PRODUCT) return x_product(x, m.factor);
    return x_add(x_product(x, m.factor), m.addend);
}

// One column: where its values are and will be, and its factors.
struct Column {
    u64 *values;
    const u64 *factors;
    u64 rows;
};

template <Kind KIND> __device__ __forceinline__ Map contribution(const Column &column, u64 row) {
    Map m = identity<KIND>();
    if (row >= column.rows) return m;
    if (KIND == SUM) m.addend = x_load(column.values, column.rows, row);
    if (KIND == PRODUCT) m.factor = x_load(column.values, column.rows, row);
    if (KIND == MAP) {
        m.addend = x_load(column.values, column.rows, row);
        m.factor = x_load(column.factors, column.rows, row);
    }
    return m;
}

__device__ __forceinline__ X x_shuffle_up(const X &x, u32 distance) {
    return x_of(__shfl_up_sync(~0u, x.c0, distance), __shfl_up_sync(~0u, x.c1, distance),
                __shfl_up_sync(~0u, x.c2, distance));
}
template <Kind KIND> __device__ __forceinline__ Map shuffle_up(const Map &m, u32 distance) {
    Map r = identity<KIND>();
    if (KIND != PRODUCT) r.addend = x_shuffle_up(m.addend, distance);
    if (KIND != SUM) r.factor = x_shuffle_up(m.factor, distance);
    return r;
}

// Composes `own` of all threads before this one; `all` becomes the composition of all threads' maps.
template <Kind KIND> __device__ __forceinline__ Map exclusive(const Map &own, Map &all) {
    __shared__ Map warps[THREADS / 32];
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    Map inclusive = own;
#pragma unroll 1
    for (u32 distance = 1; distance < 32; distance *= 2) {
        Map before = shuffle_up<KIND>(inclusive, distance);
        if (lane >= distance) inclusive = then<KIND>(before, inclusive);
    }
    if (lane == 31) warps[warp] = inclusive;
    Map prefix = shuffle_up<KIND>(inclusive, 1);
    if (lane == 0) prefix = identity<KIND>();
    __syncthreads();
    Map warps_before = identity<KIND>();
    all = identity<KIND>();
#pragma unroll 1
    for (u32 i = 0; i < THREADS / 32; i++) {
        if (i == warp) warps_before = all;
        all = then<KIND>(all, warps[i]);
    }
    __syncthreads();
    return then<KIND>(warps_before, prefix);
}

// Which columns to scan: blockIdx.y picks an auxiliary column and its column of factors.
struct Scan {
    u64 *aux;
    const u64 *factors;
    u64 rows;
    const u64 *columns;  // places in the auxiliary table
    u64 first_slot;      // column of factors of the first of them
    Map *totals;         // gridDim.x tiles for each column
};

__device__ __forceinline__ Column column_of(const Scan &scan) {
    Column column = {scan.aux + 3 * scan.columns[blockIdx.y] * scan.rows,
                     scan.factors + 3 * (scan.first_slot + blockIdx.y) * scan.rows, scan.rows};
    return column;
}

template <Kind KIND> __device__ __forceinline__ Map own_rows(const Column &column, u64 first) {
    Map own = contribution<KIND>(column, first);
#pragma unroll 1
    for (u32 i = 1; i < ROWS_PER_THREAD; i++) own = then<KIND>(own, contribution<KIND>(column, first + i));
    return own;
}

template <Kind KIND> __device__ __forceinline__ void scan_reduce(const Scan &scan) {
    Column column = column_of(scan);
    Map all;
    exclusive<KIND>(own_rows<KIND>(column, (u64)blockIdx.x * TILE + threadIdx.x * ROWS_PER_THREAD), all);
    if (threadIdx.x == 0) scan.totals[(u64)blockIdx.y * gridDim.x + blockIdx.x] = all;
}

// One block a column: the totals of `tiles` tiles become the column's value before each of them.
template <Kind KIND> __device__ __forceinline__ void scan_totals(const Scan &scan, u32 tiles) {
    Map *totals = scan.totals + (u64)blockIdx.y * tiles;
    u32 each = (tiles + THREADS - 1) / THREADS, first = threadIdx.x * each;
    u32 last = first + each < tiles ? first + each : tiles;
    Map own = identity<KIND>(), all;
#pragma unroll 1
    for (u32 i = first; i < last; i++) own = then<KIND>(own, totals[i]);
    // Sums start at 0, products and evaluations at 1.
    X value = apply<KIND>(exclusive<KIND>(own, all), KIND == SUM ? x_zero() : x_one());
#pragma unroll 1
    for (u32 i = first; i < last; i++) {
        Map total = totals[i];
        totals[i].addend = value;
        value = apply<KIND>(total, value);
    }
}

template <Kind KIND> __device__ __forceinline__ void scan_apply(const Scan &scan) {
    Column column = column_of(scan);
    u64 first = (u64)blockIdx.x * TILE + threadIdx.x * ROWS_PER_THREAD;
    Map all, before = exclusive<KIND>(own_rows<KIND>(column, first), all);
    X value = apply<KIND>(before, scan.totals[(u64)blockIdx.y * gridDim.x + blockIdx.x].addend);
#pragma unroll 1
    for (u64 row = first; row < first + ROWS_PER_THREAD && row < column.rows; row++) {
        value = apply<KIND>(contribution<KIND>(column, row), value);
        x_store(column.values, column.rows, row, value);
    }
}

#define SCAN_KERNELS(name, kind)                                                                                       \
    KERNEL __launch_bounds__(THREADS) scan_reduce_##name(Scan scan) { scan_reduce<kind>(scan); }                       \
    KERNEL __launch_bounds__(THREADS) scan_totals_##name(Scan scan, u32 tiles) { scan_totals<kind>(scan, tiles); }     \
    KERNEL __launch_bounds__(THREADS) scan_apply_##name(Scan scan) { scan_apply<kind>(scan); }

SCAN_KERNELS(sums, SUM)
SCAN_KERNELS(products, PRODUCT)
SCAN_KERNELS(maps, MAP)
