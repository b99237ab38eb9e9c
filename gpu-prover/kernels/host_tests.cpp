// The device functions as host C++, behind a C interface that the Rust tests call. Arrays only: a call each element
// would hide the functions behind their calling convention.
#include "extend.cuh"
#include "ntt.cuh"
#include "points.cuh"
#include "tip5.cuh"
#include "xfield.cuh"

extern "C" {
XMat air_constants[AIR_CONSTANTS];

void host_set_air_constants(const u64 *elements) {
    for (u32 i = 0; i < AIR_CONSTANTS; i++)
        air_constants[i] = x_matrix(x_of(elements[3 * i], elements[3 * i + 1], elements[3 * i + 2]));
}

// Every base field operation on a pair. b must be canonical; a may be any for the lazy ones.
void host_base(u64 a, u64 b, u64 *out) {
    u64 c = canonical(a);
    out[0] = c;
    out[1] = canonical(add_lazy(a, b));
    out[2] = canonical(sub_lazy(a, b));
    out[3] = add(c, b);
    out[4] = sub(c, b);
    out[5] = neg(c);
    out[6] = canonical(neg_any(a));
    out[7] = canonical(mul(a, b));
    out[8] = mul_canonical(c, b);
    out[9] = inverse(a);
    out[10] = square_canonical(c);
}

// sum of a[i] * b[i] + singles - others, all any.
u64 host_accumulate(const u64 *a, const u64 *b, u64 products, const u64 *singles, u64 num, const u64 *others,
                    u64 num_others) {
    Acc s = acc_zero((u32)num_others);
    for (u64 i = 0; i < products; i++) acc_mul(s, a[i], b[i]);
    for (u64 i = 0; i < num; i++) acc_add(s, singles[i]);
    for (u64 i = 0; i < num_others; i++) acc_sub(s, others[i]);
    return canonical(acc_value(s));
}

u64 host_sum(const u64 *singles, u64 num, const u64 *others, u64 num_others) {
    Sum s = sum_zero((u32)num_others);
    for (u64 i = 0; i < num; i++) sum_add(s, singles[i]);
    for (u64 i = 0; i < num_others; i++) sum_sub(s, others[i]);
    return canonical(sum_value(s));
}

// Inner products of two columns and one point as `evaluate_points` makes them, with the fragments of mma.m16n8k32 as the PTX
// manual defines them: register i of A is row g + 8 (i % 2), places 16 (i / 2) + 4t and following of k, register i of B
// places 16 i + 4t of column g, and of C row g + 8 (i / 2), column 2t + i % 2.
void host_inner_products(const u64 *columns, u64 stride, const u64 *powers, u64 length, u64 *out) {
    u32 sums[16][8] = {};
    for (u64 step = 0; step < length; step += 32) {
        u8 a[16][32], b[32][8];
        for (u32 t = 0; t < 4; t++) {
            u64 bytes[3][8];
            transpose_8x8(columns + step + 8 * t, bytes[0]);
            transpose_8x8(columns + stride + step + 8 * t, bytes[1]);
            transpose_8x8(powers + step + 8 * t, bytes[2]);
            for (u32 g = 0; g < 8; g++)
                for (u32 half = 0; half < 2; half++)
                    for (u32 k = 0; k < 4; k++) {
                        u32 shift = 8 * (4 * half + k), place = 16 * half + 4 * t + k;
                        a[g][place] = (u8)(bytes[0][g] >> shift);
                        a[g + 8][place] = (u8)(bytes[1][g] >> shift);
                        b[place][g] = (u8)(bytes[2][g] >> shift);
                    }
        }
        for (u32 row = 0; row < 16; row++)
            for (u32 column = 0; column < 8; column++)
                for (u32 k = 0; k < 32; k++) sums[row][column] += a[row][k] * b[k][column];
    }
    out[0] = out[1] = 0;
    for (u32 lane = 0; lane < 32; lane++) {
        u32 g = lane / 4, t = lane % 4;
        for (u32 k = 0; k < 2; k++) {
            u64 joined = join_places(sums[g + 8 * k][2 * t], sums[g + 8 * k][2 * t + 1]);
            out[k] = add(out[k], mul_canonical(joined, place_value(g + 2 * t)));
        }
    }
}

void host_extension(const u64 *a, const u64 *b, u64 *product, u64 *inverted) {
    X x = x_of(a[0], a[1], a[2]), y = x_of(b[0], b[1], b[2]);
    x_store(product, 1, 0, x_canonical(x_mul(x, y)));
    x_store(inverted, 1, 0, x_inverse(x));
}

void host_tip5(u64 *state) {
    static const u8 lookup[256] = {TIP5_LOOKUP};
    static const u64 constants[80] = {TIP5_ROUND_CONSTANTS};
    static const u32 column[16] = {TIP5_MDS_COLUMN};
    tip5_permutation(state, lookup, constants, column);
}

// Contributions of all rows to the linked auxiliary columns; `late`: of those that need complete columns.
void host_extend(const u64 *main, u64 *aux, u64 *factors, u64 rows, u32 late) {
    Extension e = {main, aux, factors, rows};
    for (u64 row = 0; row < rows; row++) {
        if (late) {
            extend_late_row(e, row);
            continue;
        }
        extend_program_row(e, row);
        extend_processor_row(e, row);
        extend_op_stack_row(e, row);
        extend_ram_row(e, row);
        extend_jump_stack_row(e, row);
        extend_hash_row(e, row);
        extend_cascade_row(e, row);
        extend_lookup_row(e, row);
        extend_u32_row(e, row);
    }
}

u64 host_tile_length(u32 rows, u32 log_width) { return tile_length(rows, log_width); }
u64 host_tile_index(u32 row, u32 lane, u32 log_width) { return tile_index(row, lane, log_width); }

}

template <int S> static void transform(Tile tile, Twiddles twiddles, Team team, u32 inverted) {
    if (inverted) ntt_transform<S, true>(tile, tile, tile, twiddles, twiddles, team);
    else ntt_transform<S, false>(tile, tile, tile, twiddles, twiddles, team);
}

extern "C" void host_transform(u64 *tile, u32 log_rows, u32 elements, u32 log_width, const u64 *twiddles,
                               u32 inverted) {
    Tile shared = {tile, log_width};
    Twiddles plain = {twiddles};
    Team team = {0, 8, elements, log_width};
    NTT_DISPATCH(log_rows, transform, shared, plain, team, inverted)
}

// A lane's coset: its elements times B^reverse(r), as the rows pass of the forward transform does it.
template <u32 TURNS> struct ScaledTile {
    Tile tile;
    const u64 *factor;
    u32 levels;
    u64 get(u32, u32 row, u32 lane) const { return mul(tile.get(0, row, lane), factor[(row >> levels) << tile.log_width | lane]); }
};

template <int S>
static void lanes(Tile tile, Twiddles twiddles, Team team, u64 c0, const u64 *powers, const u64 *low, const u64 *high,
                  u64 *heap, u64 *factor) {
    const u32 levels = Phases<S>::a, width = 1u << tile.log_width;
    for (u32 e = width; e < width << levels; e++)
        heap[e] = lane_twiddle(e / width, c0 + e % width, S, twiddles.heap, powers, low, high);
    for (u32 e = 0; e < width << (S - levels); e++)
        factor[e] = lane_power(e / width << levels, c0 + e % width, S, powers, low, high);
    LaneTwiddles outer = {heap, tile.log_width};
    ScaledTile<Phases<S>::turns> scaled = {tile, factor, levels};
    ntt_transform<S, false>(scaled, tile, tile, outer, twiddles, team);
}

// The rows pass of the forward transform on one tile of lanes c0 and following. Scratch: 16 << log_width words for the heap,
// 2^log_rows << log_width for the factors.
extern "C" void host_rows(u64 *tile, u32 log_rows, u32 log_width, u64 c0, const u64 *twiddles, const u64 *powers,
                          const u64 *low, const u64 *high, u64 *heap, u64 *factor) {
    Tile shared = {tile, log_width};
    Twiddles plain = {twiddles};
    Team team = {0, 8, 1u << (log_rows + log_width), log_width};
    NTT_DISPATCH(log_rows, lanes, shared, plain, team, c0, powers, low, high, heap, factor)
}
