// What one row of the main table contributes to the 49 auxiliary columns that link the nine tables (specification,
// chapter "Table Linking"; the formulas are those of `src/aux_table/`).
//
// Each column is a running value. A row's contribution is
//   - a summand, for log-derivatives: the column becomes their running sum;
//   - a factor, for permutation arguments: the running product;
//   - an affine map x -> factor x + addend, for evaluation arguments.
// Summands and factors are written where the column will be; an affine map's addend goes there too, its factor to a
// column of `factors`. `scan.cuh` does the rest. Rows without effect write the neutral element. Two columns are made
// from columns that must be complete: `extend_late_row`.
#pragma once
#include "air.cuh"
#include "air_names.cuh"

struct Extension {
    const u64 *main;
    u64 *aux, *factors;
    u64 stride; // rows of a column
};

FN u64 at(const Extension &e, u32 column, u64 row) { return e.main[column * e.stride + row]; }

FN void put(const Extension &e, u32 column, u64 row, const X &value) {
    x_store(e.aux + (u64)(3 * column) * e.stride, e.stride, row, value);
}
FN void put_map(const Extension &e, u32 column, u32 slot, u64 row, const X &factor, const X &addend) {
    put(e, column, row, addend);
    x_store(e.factors + (u64)(3 * slot) * e.stride, e.stride, row, factor);
}

FN X x_zero() { return x_of(0, 0, 0); }
FN X x_one() { return x_of(ONE, 0, 0); }
// A small number in Montgomery form: k * 2^64 = k * (2^32 - 1) modulo p.
FN u64 small(u32 k) { return ((u64)k << 32) - k; }
// The number that an element in Montgomery form stands for.
FN u64 number(u64 a) { return canonical(mul(a, 1)); }
// a / 2, canonical
FN u64 half(u64 a) { return (a >> 1) + (a & 1 ? (P >> 1) + 1 : 0); }

// challenge - sum of weights times values: a row compressed to one element. Canonical.
struct Compressor {
    AccX sum;
};
FN Compressor compress() {
    Compressor c = {accx_zero(0)};
    return c;
}
FN void take(Compressor &c, u32 weight, u64 value) { accx_mul_weight(c.sum, value, challenge(weight)); }
FN X compressed(const Compressor &c) { return x_canonical(accx_value(c.sum)); }
FN X below(u32 indeterminate, const Compressor &c) { return x_sub(challenge_value(indeterminate), compressed(c)); }

// indeterminate - value for a base field value
FN X root(u32 indeterminate, u64 value) {
    X r = challenge_value(indeterminate);
    r.c0 = sub(r.c0, value);
    return r;
}
FN X x_product(const X &a, const X &b) { return x_canonical(x_mul(a, b)); }
FN X fraction(u64 numerator, const X &denominator) { return x_canonical(x_mul_base(x_inverse(denominator), numerator)); }

// sum of StackWeight_i * state[i]
template <u32 COUNT> FN X compress_state(const u64 *state) {
    Compressor c = compress();
#pragma unroll
    for (u32 i = 0; i < COUNT; i++) take(c, Challenge_StackWeight0 + i, state[i]);
    return compressed(c);
}

// Adds a symbol to an affine map: first the map, then x -> indeterminate x + symbol.
FN void absorb(u32 indeterminate, u64 symbol, X &factor, X &addend) {
    factor = x_canonical(x_mul_matrix(factor, challenge(indeterminate)));
    addend = x_canonical(x_mul_matrix(addend, challenge(indeterminate)));
    addend.c0 = add(addend.c0, symbol);
}

// ---- program ----

FN void extend_program_row(const Extension &e, u64 row) {
    u64 word = at(e, ProgramMain_Instruction, row);
    // An instruction's argument is in the next row, so each row's summand arrives one row later.
    X server = x_zero();
    if (row > 0 && at(e, ProgramMain_IsHashInputPadding, row - 1) != ONE) {
        Compressor c = compress();
        take(c, Challenge_ProgramAddressWeight, at(e, ProgramMain_Address, row - 1));
        take(c, Challenge_ProgramInstructionWeight, at(e, ProgramMain_Instruction, row - 1));
        take(c, Challenge_ProgramNextInstructionWeight, word);
        server = fraction(at(e, ProgramMain_LookupMultiplicity, row - 1), below(Challenge_InstructionLookupIndeterminate, c));
    }
    put(e, ProgramAux_InstructionLookupServerLogDerivative, row, server);

    X factor = challenge_value(Challenge_ProgramAttestationPrepareChunkIndeterminate), addend = x_of(word, 0, 0);
    if (at(e, ProgramMain_IndexInChunk, row) == 0) {
        // A new chunk forgets the one before: the map to the constant 1 * indeterminate + word.
        addend = factor;
        addend.c0 = add(addend.c0, word);
        factor = x_zero();
    }
    put_map(e, ProgramAux_PrepareChunkRunningEvaluation, Slot_ProgramAux_PrepareChunkRunningEvaluation, row, factor, addend);
}

// ---- processor ----

struct Step {
    bool exists;   // false before the first instruction
    u32 opcode;    // of the instruction in the row before
    u32 words;     // its argument, where that counts words
    u64 before;    // that row
};

FN u64 stack(const Extension &e, u32 i, u64 row) { return at(e, ProcessorMain_ST0 + i, row); }
FN u64 helper(const Extension &e, u32 i, u64 row) { return at(e, ProcessorMain_HV0 + i, row); }

// One factor for each word between the stack's registers and its memory. The words are visible in st15 and up of
// whichever of the two rows has the shorter stack.
FN X op_stack_factor(const Extension &e, u64 row, const Step &step) {
    int influence = op_stack_influence(step.opcode, (int)step.words);
    if (influence == 0) return x_one();
    u64 shorter = influence > 0 ? step.before : row;
    u32 count = (u32)(influence > 0 ? influence : -influence);
    Compressor c = compress();
    take(c, Challenge_OpStackClkWeight, at(e, ProcessorMain_CLK, step.before));
    take(c, Challenge_OpStackIb1Weight, at(e, ProcessorMain_IB1, step.before));
    X common = below(Challenge_OpStackIndeterminate, c);
    u64 pointer = at(e, ProcessorMain_OpStackPointer, shorter);
    X product = x_one();
    for (u32 i = 0; i < count; i++) {
        Compressor word = compress();
        take(word, Challenge_OpStackPointerWeight, add(pointer, small(i)));
        take(word, Challenge_OpStackFirstUnderflowElementWeight, stack(e, 15 - i, shorter));
        product = x_product(product, x_sub(common, compressed(word)));
    }
    return product;
}

// Multiplies `product` by the factor of one access to memory.
FN void ram_access(const X &common, u64 pointer, u64 value, X &product) {
    Compressor c = compress();
    take(c, Challenge_RamPointerWeight, pointer);
    take(c, Challenge_RamValueWeight, value);
    product = x_product(product, x_sub(common, compressed(c)));
}

FN X ram_factor(const Extension &e, u64 row, const Step &step) {
    u64 before = step.before;
    X product = x_one();
    Compressor c = compress();
    take(c, Challenge_RamClkWeight, at(e, ProcessorMain_CLK, before));
    take(c, Challenge_RamInstructionTypeWeight, step.opcode == OP_WRITE_MEM ? RAM_WRITE : RAM_READ);
    X common = below(Challenge_RamIndeterminate, c);
    // Accesses to consecutive addresses: the first `top` values are on the stack of row `of`, the rest are helper
    // variables of the row before.
    u32 count = 0, top = 0, first_helper = 0;
    u64 pointer = 0, of = row;
    switch (step.opcode) {
    case OP_READ_MEM: // leaves the pointer just below the first word that was read
        count = top = step.words, pointer = add(stack(e, 0, row), ONE);
        break;
    case OP_WRITE_MEM:
        count = top = step.words, pointer = stack(e, 0, before), of = before;
        break;
    case OP_SPONGE_ABSORB_MEM:
        count = 10, top = 4, pointer = stack(e, 0, before);
        break;
    case OP_MERKLE_STEP_MEM:
        count = 5, pointer = stack(e, 7, before);
        break;
    case OP_XX_DOT_STEP:
        count = 3, pointer = stack(e, 0, before);
        break;
    case OP_XB_DOT_STEP:
        count = 1, pointer = stack(e, 0, before);
        break;
    default:
        return product;
    }
    for (u32 i = 0; i < count; i++) {
        u64 value = i < top ? stack(e, 1 + i, of) : helper(e, i - top, before);
        ram_access(common, add(pointer, small(i)), value, product);
    }
    if (step.opcode == OP_XX_DOT_STEP || step.opcode == OP_XB_DOT_STEP) {
        first_helper = count;
        pointer = stack(e, 1, before);
        for (u32 i = 0; i < 3; i++) ram_access(common, add(pointer, small(i)), helper(e, first_helper + i, before), product);
    }
    return product;
}

FN X u32_request(u32 opcode, u64 left, u64 right, u64 result) {
    Compressor c = compress();
    take(c, Challenge_U32LhsWeight, left);
    take(c, Challenge_U32RhsWeight, right);
    take(c, Challenge_U32CiWeight, small(opcode));
    take(c, Challenge_U32ResultWeight, result);
    return x_inverse(below(Challenge_U32Indeterminate, c));
}

FN X u32_summand(const Extension &e, u64 row, const Step &step) {
    u64 a = stack(e, 0, step.before), b = stack(e, 1, step.before), c = stack(e, 0, row), d = stack(e, 1, row);
    switch (step.opcode) {
    case OP_SPLIT:
        return u32_request(OP_SPLIT, c, d, 0);
    case OP_LT:
    case OP_AND:
    case OP_POW:
        return u32_request(step.opcode, a, b, c);
    case OP_XOR: // a ^ b = a + b - 2 (a & b)
        return u32_request(OP_AND, a, b, half(sub(add(a, b), c)));
    case OP_LOG_2_FLOOR:
    case OP_POP_COUNT:
        return u32_request(step.opcode, a, 0, c);
    case OP_DIV_MOD: // the remainder is less than the divisor, numerator and quotient are 32-bit numbers
        return x_add(u32_request(OP_LT, c, b, ONE), u32_request(OP_SPLIT, a, d, 0));
    case OP_MERKLE_STEP:
    case OP_MERKLE_STEP_MEM:
        return u32_request(OP_SPLIT, stack(e, 5, step.before), stack(e, 5, row), 0);
    default:
        return x_zero();
    }
}

FN void extend_processor_row(const Extension &e, u64 row) {
    Step step = {row > 0, 0, 0, row > 0 ? row - 1 : 0};
    if (step.exists) {
        step.opcode = (u32)number(at(e, ProcessorMain_CI, step.before));
        step.words = (u32)number(at(e, ProcessorMain_NIA, step.before));
    }
    bool padding = at(e, ProcessorMain_IsPadding, row) == ONE;

    X factor = x_one(), addend = x_zero();
    if (step.exists && step.opcode == OP_READ_IO)
        // Words read from public input lie on the stack of the next row, the first one deepest.
        for (u32 i = step.words; i-- > 0;) absorb(Challenge_StandardInputIndeterminate, stack(e, i, row), factor, addend);
    put_map(e, ProcessorAux_InputTableEvalArg, Slot_ProcessorAux_InputTableEvalArg, row, factor, addend);

    factor = x_one(), addend = x_zero();
    if (step.exists && step.opcode == OP_WRITE_IO)
        for (u32 i = 0; i < step.words; i++)
            absorb(Challenge_StandardOutputIndeterminate, stack(e, i, step.before), factor, addend);
    put_map(e, ProcessorAux_OutputTableEvalArg, Slot_ProcessorAux_OutputTableEvalArg, row, factor, addend);

    X lookup = x_zero();
    if (!padding) {
        Compressor c = compress();
        take(c, Challenge_ProgramAddressWeight, at(e, ProcessorMain_IP, row));
        take(c, Challenge_ProgramInstructionWeight, at(e, ProcessorMain_CI, row));
        take(c, Challenge_ProgramNextInstructionWeight, at(e, ProcessorMain_NIA, row));
        lookup = x_inverse(below(Challenge_InstructionLookupIndeterminate, c));
    }
    put(e, ProcessorAux_InstructionLookupClientLogDerivative, row, lookup);

    bool acts = step.exists && !padding;
    put(e, ProcessorAux_OpStackTablePermArg, row, acts ? op_stack_factor(e, row, step) : x_one());
    put(e, ProcessorAux_RamTablePermArg, row, acts ? ram_factor(e, row, step) : x_one());

    Compressor jump = compress();
    take(jump, Challenge_JumpStackClkWeight, at(e, ProcessorMain_CLK, row));
    take(jump, Challenge_JumpStackCiWeight, at(e, ProcessorMain_CI, row));
    take(jump, Challenge_JumpStackJspWeight, at(e, ProcessorMain_JSP, row));
    take(jump, Challenge_JumpStackJsoWeight, at(e, ProcessorMain_JSO, row));
    take(jump, Challenge_JumpStackJsdWeight, at(e, ProcessorMain_JSD, row));
    put(e, ProcessorAux_JumpStackTablePermArg, row, below(Challenge_JumpStackIndeterminate, jump));

    u32 opcode = (u32)number(at(e, ProcessorMain_CI, row));
    factor = x_one(), addend = x_zero();
    if (opcode == OP_HASH || opcode == OP_MERKLE_STEP || opcode == OP_MERKLE_STEP_MEM) {
        u64 state[10];
        bool right = opcode != OP_HASH && (number(stack(e, 5, row)) & 1);
#pragma unroll
        for (u32 i = 0; i < 5; i++) {
            u64 node = stack(e, i, row), other = opcode == OP_HASH ? stack(e, 5 + i, row) : helper(e, i, row);
            state[i] = right ? other : node;
            state[5 + i] = right ? node : other;
        }
        factor = challenge_value(Challenge_HashInputIndeterminate), addend = compress_state<10>(state);
    }
    put_map(e, ProcessorAux_HashInputEvalArg, Slot_ProcessorAux_HashInputEvalArg, row, factor, addend);

    factor = x_one(), addend = x_zero();
    if (step.exists && (step.opcode == OP_HASH || step.opcode == OP_MERKLE_STEP || step.opcode == OP_MERKLE_STEP_MEM)) {
        u64 state[5];
#pragma unroll
        for (u32 i = 0; i < 5; i++) state[i] = stack(e, i, row);
        factor = challenge_value(Challenge_HashDigestIndeterminate), addend = compress_state<5>(state);
    }
    put_map(e, ProcessorAux_HashDigestEvalArg, Slot_ProcessorAux_HashDigestEvalArg, row, factor, addend);

    factor = x_one(), addend = x_zero();
    if (step.exists && (step.opcode == OP_SPONGE_INIT || step.opcode == OP_SPONGE_ABSORB ||
                        step.opcode == OP_SPONGE_ABSORB_MEM || step.opcode == OP_SPONGE_SQUEEZE)) {
        u64 state[10];
        // Of the words that are absorbed from memory four stay on the stack, six are helper variables.
#pragma unroll
        for (u32 i = 0; i < 10; i++)
            state[i] = step.opcode == OP_SPONGE_INIT       ? 0
                       : step.opcode == OP_SPONGE_ABSORB   ? stack(e, i, step.before)
                       : step.opcode == OP_SPONGE_SQUEEZE  ? stack(e, i, row)
                       : i < 4                             ? stack(e, 1 + i, row)
                                                           : helper(e, i - 4, step.before);
        u32 symbol = step.opcode == OP_SPONGE_ABSORB_MEM ? OP_SPONGE_ABSORB : step.opcode;
        Compressor c = compress();
        take(c, Challenge_HashCIWeight, small(symbol));
        factor = challenge_value(Challenge_SpongeIndeterminate), addend = x_add(compress_state<10>(state), compressed(c));
    }
    put_map(e, ProcessorAux_SpongeEvalArg, Slot_ProcessorAux_SpongeEvalArg, row, factor, addend);

    put(e, ProcessorAux_U32LookupClientLogDerivative, row, step.exists ? u32_summand(e, row, step) : x_zero());

    u64 multiplicity = at(e, ProcessorMain_ClockJumpDifferenceLookupMultiplicity, row);
    X clock = root(Challenge_ClockJumpDifferenceLookupIndeterminate, at(e, ProcessorMain_CLK, row));
    put(e, ProcessorAux_ClockJumpDifferenceLookupServerLogDerivative, row,
        multiplicity ? fraction(multiplicity, clock) : x_zero());
}

// ---- op stack, RAM, jump stack ----

// 1 / (indeterminate - difference of the clocks of this row and the one before), if both belong to one region.
FN X clock_jump(const Extension &e, u64 row, bool same_region, u32 clock) {
    if (!same_region) return x_zero();
    u64 difference = sub(at(e, clock, row), at(e, clock, row - 1));
    return x_inverse(root(Challenge_ClockJumpDifferenceLookupIndeterminate, difference));
}

FN void extend_op_stack_row(const Extension &e, u64 row) {
    bool padding = at(e, OpStackMain_IB1ShrinkStack, row) == OP_STACK_PADDING;
    X factor = x_one();
    if (!padding) {
        Compressor c = compress();
        take(c, Challenge_OpStackClkWeight, at(e, OpStackMain_CLK, row));
        take(c, Challenge_OpStackIb1Weight, at(e, OpStackMain_IB1ShrinkStack, row));
        take(c, Challenge_OpStackPointerWeight, at(e, OpStackMain_StackPointer, row));
        take(c, Challenge_OpStackFirstUnderflowElementWeight, at(e, OpStackMain_FirstUnderflowElement, row));
        factor = below(Challenge_OpStackIndeterminate, c);
    }
    put(e, OpStackAux_RunningProductPermArg, row, factor);
    bool same = row > 0 && !padding && at(e, OpStackMain_StackPointer, row - 1) == at(e, OpStackMain_StackPointer, row);
    put(e, OpStackAux_ClockJumpDifferenceLookupClientLogDerivative, row, clock_jump(e, row, same, OpStackMain_CLK));
}

FN bool starts_ram_region(const Extension &e, u64 row) {
    return row > 0 && at(e, RamMain_InstructionType, row) != RAM_PADDING &&
           at(e, RamMain_RamPointer, row - 1) != at(e, RamMain_RamPointer, row);
}

FN void extend_ram_row(const Extension &e, u64 row) {
    bool padding = at(e, RamMain_InstructionType, row) == RAM_PADDING, starts = starts_ram_region(e, row);
    u64 pointer = at(e, RamMain_RamPointer, row);
    // The first row starts the first region even if it is padding.
    X linear = root(Challenge_RamTableBezoutRelationIndeterminate, pointer);
    put(e, RamAux_RunningProductOfRAMP, row, row == 0 || starts ? linear : x_one());

    X indeterminate = challenge_value(Challenge_RamTableBezoutRelationIndeterminate);
    X factor = row == 0 ? x_zero() : starts ? indeterminate : x_one();
    bool enters = row == 0 || starts;
    u64 c0 = at(e, RamMain_BezoutCoefficientPolynomialCoefficient0, row);
    u64 c1 = at(e, RamMain_BezoutCoefficientPolynomialCoefficient1, row);
    put_map(e, RamAux_BezoutCoefficient0, Slot_RamAux_BezoutCoefficient0, row, factor, x_of(enters ? c0 : 0, 0, 0));
    put_map(e, RamAux_BezoutCoefficient1, Slot_RamAux_BezoutCoefficient1, row, factor, x_of(enters ? c1 : 0, 0, 0));

    X access = x_one();
    if (!padding) {
        Compressor c = compress();
        take(c, Challenge_RamClkWeight, at(e, RamMain_CLK, row));
        take(c, Challenge_RamInstructionTypeWeight, at(e, RamMain_InstructionType, row));
        take(c, Challenge_RamPointerWeight, pointer);
        take(c, Challenge_RamValueWeight, at(e, RamMain_RamValue, row));
        access = below(Challenge_RamIndeterminate, c);
    }
    put(e, RamAux_RunningProductPermArg, row, access);
    bool same = row > 0 && !padding && at(e, RamMain_RamPointer, row - 1) == pointer;
    put(e, RamAux_ClockJumpDifferenceLookupClientLogDerivative, row, clock_jump(e, row, same, RamMain_CLK));
}

FN void extend_jump_stack_row(const Extension &e, u64 row) {
    Compressor c = compress();
    take(c, Challenge_JumpStackClkWeight, at(e, JumpStackMain_CLK, row));
    take(c, Challenge_JumpStackCiWeight, at(e, JumpStackMain_CI, row));
    take(c, Challenge_JumpStackJspWeight, at(e, JumpStackMain_JSP, row));
    take(c, Challenge_JumpStackJsoWeight, at(e, JumpStackMain_JSO, row));
    take(c, Challenge_JumpStackJsdWeight, at(e, JumpStackMain_JSD, row));
    put(e, JumpStackAux_RunningProductPermArg, row, below(Challenge_JumpStackIndeterminate, c));
    // Padding rows take part in both arguments.
    bool same = row > 0 && at(e, JumpStackMain_JSP, row - 1) == at(e, JumpStackMain_JSP, row);
    put(e, JumpStackAux_ClockJumpDifferenceLookupClientLogDerivative, row, clock_jump(e, row, same, JumpStackMain_CLK));
}

// ---- hash, cascade, lookup, u32 ----

FN void extend_hash_row(const Extension &e, u64 row) {
    u64 mode = at(e, HashMain_Mode, row), round = at(e, HashMain_RoundNumber, row), ci = at(e, HashMain_CI, row);
    bool first = round == 0, last = round == small(TIP5_LAST_ROUND);
    X factor[4], addend[4];
#pragma unroll
    for (u32 i = 0; i < 4; i++) factor[i] = x_one(), addend[i] = x_zero();
    if (mode != HASH_MODE_PAD && (first || last)) {
        u64 rate[10];
        // The first four elements are recomposed from their limbs, which are those of the Montgomery form.
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            u64 value = 0;
            for (u32 limb = 0; limb < 4; limb++)
                value = add(mul_canonical(value, small(1 << 16)), at(e, HashMain_State0HighestLkIn + 4 * i + limb, row));
            rate[i] = mul_canonical(value, HASH_MONTGOMERY_INVERSE);
        }
#pragma unroll
        for (u32 i = 4; i < 10; i++) rate[i] = at(e, HashMain_State4 + i - 4, row);
        if (mode == HASH_MODE_PROGRAM && first) {
            X chunk = x_one();
            for (u32 i = 0; i < 10; i++) {
                chunk = x_canonical(x_mul_matrix(chunk, challenge(Challenge_ProgramAttestationPrepareChunkIndeterminate)));
                chunk.c0 = add(chunk.c0, rate[i]);
            }
            factor[0] = challenge_value(Challenge_ProgramAttestationSendChunkIndeterminate), addend[0] = chunk;
        }
        if (mode == HASH_MODE_HASH && first)
            factor[1] = challenge_value(Challenge_HashInputIndeterminate), addend[1] = compress_state<10>(rate);
        if (mode == HASH_MODE_HASH && last)
            factor[2] = challenge_value(Challenge_HashDigestIndeterminate), addend[2] = compress_state<5>(rate);
        if (mode == HASH_MODE_SPONGE && first) {
            Compressor c = compress();
            take(c, Challenge_HashCIWeight, ci);
            X symbol = compressed(c);
            if (ci != small(OP_SPONGE_INIT)) symbol = x_add(symbol, compress_state<10>(rate));
            factor[3] = challenge_value(Challenge_SpongeIndeterminate), addend[3] = symbol;
        }
    }
    put_map(e, HashAux_ReceiveChunkRunningEvaluation, Slot_HashAux_ReceiveChunkRunningEvaluation, row, factor[0], addend[0]);
    put_map(e, HashAux_HashInputRunningEvaluation, Slot_HashAux_HashInputRunningEvaluation, row, factor[1], addend[1]);
    put_map(e, HashAux_HashDigestRunningEvaluation, Slot_HashAux_HashDigestRunningEvaluation, row, factor[2], addend[2]);
    put_map(e, HashAux_SpongeRunningEvaluation, Slot_HashAux_SpongeRunningEvaluation, row, factor[3], addend[3]);

    bool looks_up = mode != HASH_MODE_PAD && !last && ci != small(OP_SPONGE_INIT);
    // Limbs come in the same order in the inputs, the outputs and the auxiliary columns. One inversion for four.
#pragma unroll 1
    for (u32 group = 0; group < 4; group++) {
        X d[4], prefix[4], rest = x_zero();
        if (looks_up) {
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
                Compressor c = compress();
                take(c, Challenge_HashCascadeLookInWeight, at(e, HashMain_State0HighestLkIn + 4 * group + i, row));
                take(c, Challenge_HashCascadeLookOutWeight, at(e, HashMain_State0HighestLkOut + 4 * group + i, row));
                d[i] = below(Challenge_HashCascadeLookupIndeterminate, c);
                prefix[i] = i == 0 ? d[0] : x_product(prefix[i - 1], d[i]);
            }
            rest = x_inverse(prefix[3]);
        }
#pragma unroll
        for (int i = 3; i >= 0; i--) {
            X value = x_zero();
            if (looks_up) {
                value = i == 0 ? rest : x_product(rest, prefix[i - 1]);
                rest = x_product(rest, d[i]);
            }
            put(e, HashAux_CascadeState0HighestClientLogDerivative + 4 * group + i, row, value);
        }
    }
}

FN X cascade_request(u64 input, u64 output) {
    Compressor c = compress();
    take(c, Challenge_LookupTableInputWeight, input);
    take(c, Challenge_LookupTableOutputWeight, output);
    return x_inverse(below(Challenge_CascadeLookupIndeterminate, c));
}

FN void extend_cascade_row(const Extension &e, u64 row) {
    X server = x_zero(), client = x_zero();
    if (at(e, CascadeMain_IsPadding, row) != ONE) {
        u64 in_high = at(e, CascadeMain_LookInHi, row), in_low = at(e, CascadeMain_LookInLo, row);
        u64 out_high = at(e, CascadeMain_LookOutHi, row), out_low = at(e, CascadeMain_LookOutLo, row);
        Compressor c = compress();
        take(c, Challenge_HashCascadeLookInWeight, add(mul_canonical(small(256), in_high), in_low));
        take(c, Challenge_HashCascadeLookOutWeight, add(mul_canonical(small(256), out_high), out_low));
        server = fraction(at(e, CascadeMain_LookupMultiplicity, row), below(Challenge_HashCascadeLookupIndeterminate, c));
        client = x_add(cascade_request(in_low, out_low), cascade_request(in_high, out_high));
    }
    put(e, CascadeAux_HashTableServerLogDerivative, row, server);
    put(e, CascadeAux_LookupTableClientLogDerivative, row, client);
}

FN void extend_lookup_row(const Extension &e, u64 row) {
    X server = x_zero(), factor = x_one(), addend = x_zero();
    if (at(e, LookupMain_IsPadding, row) != ONE) {
        Compressor c = compress();
        take(c, Challenge_LookupTableInputWeight, at(e, LookupMain_LookIn, row));
        take(c, Challenge_LookupTableOutputWeight, at(e, LookupMain_LookOut, row));
        server = fraction(at(e, LookupMain_LookupMultiplicity, row), below(Challenge_CascadeLookupIndeterminate, c));
        factor = challenge_value(Challenge_LookupTablePublicIndeterminate);
        addend = x_of(at(e, LookupMain_LookOut, row), 0, 0);
    }
    put(e, LookupAux_CascadeTableServerLogDerivative, row, server);
    put_map(e, LookupAux_PublicEvaluationArgument, Slot_LookupAux_PublicEvaluationArgument, row, factor, addend);
}

FN void extend_u32_row(const Extension &e, u64 row) {
    X server = x_zero();
    if (at(e, U32Main_CopyFlag, row) == ONE) {
        Compressor c = compress();
        take(c, Challenge_U32CiWeight, at(e, U32Main_CI, row));
        take(c, Challenge_U32LhsWeight, at(e, U32Main_LHS, row));
        take(c, Challenge_U32RhsWeight, at(e, U32Main_RHS, row));
        take(c, Challenge_U32ResultWeight, at(e, U32Main_Result, row));
        server = fraction(at(e, U32Main_LookupMultiplicity, row), below(Challenge_U32Indeterminate, c));
    }
    put(e, U32Aux_LookupServerLogDerivative, row, server);
}

// ---- what needs complete columns ----

FN void extend_late_row(const Extension &e, u64 row) {
    X factor = x_one(), addend = x_zero();
    if (at(e, ProgramMain_IndexInChunk, row) == small(9) && at(e, ProgramMain_IsTablePadding, row) != ONE) {
        factor = challenge_value(Challenge_ProgramAttestationSendChunkIndeterminate);
        addend = x_load(e.aux + (u64)(3 * ProgramAux_PrepareChunkRunningEvaluation) * e.stride, e.stride, row);
    }
    put_map(e, ProgramAux_SendChunkRunningEvaluation, Slot_ProgramAux_SendChunkRunningEvaluation, row, factor, addend);

    // The formal derivative of the product of all (X - pointer): (f (X - r))' = f' (X - r) + f.
    factor = x_one(), addend = x_zero();
    if (starts_ram_region(e, row)) {
        factor = root(Challenge_RamTableBezoutRelationIndeterminate, at(e, RamMain_RamPointer, row));
        addend = x_load(e.aux + (u64)(3 * RamAux_RunningProductOfRAMP) * e.stride, e.stride, row - 1);
    }
    put_map(e, RamAux_FormalDerivative, Slot_RamAux_FormalDerivative, row, factor, addend);
}
