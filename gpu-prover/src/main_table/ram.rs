//! RAM table: all accesses to memory, sorted by (pointer, clock), with the Bezout argument that each pointer's accesses
//! form one contiguous region.

use rayon::prelude::*;
use triton_air::table::ram::{INSTRUCTION_TYPE_READ, INSTRUCTION_TYPE_WRITE, PADDING_INDICATOR};
use triton_air::table_column::MasterMainColumn;
use triton_air::table_column::RamMainColumn as Column;
use triton_vm::prelude::{BFieldElement, FiniteField};
use triton_vm::table::ram::bezout_coefficient_polynomials_coefficients;

use super::{ONE, ZERO, clock_jumps, write_columns};
use crate::trace::RamCall;

/// Fill from `height` calls in the order of time, and pad: padding repeats the last row, marked by its instruction
/// type. Returns the clock jump differences.
pub(super) fn fill(columns: &mut [&mut [BFieldElement]], height: usize, call: impl Fn(usize) -> RamCall + Sync) -> Vec<u32> {
    let mut order: Vec<(u64, u32)> =
        (0..height).into_par_iter().map(|index| (call(index).pointer.value(), index as u32)).collect();
    order.par_sort_unstable();
    let sorted: Vec<RamCall> = order.into_par_iter().map(|(_, index)| call(index as usize)).collect();

    // The last columns belong to the contiguity argument.
    let (accesses, _) = columns.split_at_mut(Column::InverseOfRampDifference.main_index());
    write_columns(accesses, &sorted, |column, call| match column {
        c if c == Column::CLK.main_index() => call.clock.into(),
        c if c == Column::InstructionType.main_index() => {
            if call.is_write {
                INSTRUCTION_TYPE_WRITE
            } else {
                INSTRUCTION_TYPE_READ
            }
        }
        c if c == Column::RamPointer.main_index() => call.pointer,
        _ => call.value,
    });
    fill_contiguity_argument(columns, &sorted);
    pad(columns, height);
    clock_jumps(&sorted, |call| (call.pointer, call.clock))
}

/// Inverses of the pointer differences and the Bezout coefficients, for sorted calls.
fn fill_contiguity_argument(columns: &mut [&mut [BFieldElement]], sorted: &[RamCall]) {
    // The first row of each region.
    let starts: Vec<usize> =
        (0..sorted.len()).into_par_iter().filter(|&row| row == 0 || sorted[row].pointer != sorted[row - 1].pointer).collect();
    let pointers: Vec<_> = starts.iter().map(|&row| sorted[row].pointer).collect();

    // Only the last row of a region, except the very last, has a difference to its successor.
    let differences = pointers.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let inverses = BFieldElement::par_batch_inversion(differences);
    let inverse_column = &mut *columns[Column::InverseOfRampDifference.main_index()];
    inverse_column[..sorted.len()].fill(ZERO);
    for (&start, inverse) in starts.iter().skip(1).zip(inverses) {
        inverse_column[start - 1] = inverse;
    }

    // Region k (of m) carries the coefficients of degree m - 1 - k.
    let (bezout_0, bezout_1) = bezout_coefficient_polynomials_coefficients(&pointers);
    for (column, coefficients) in [
        (Column::BezoutCoefficientPolynomialCoefficient0, bezout_0),
        (Column::BezoutCoefficientPolynomialCoefficient1, bezout_1),
    ] {
        let column = &mut *columns[column.main_index()];
        let ends = starts.iter().skip(1).copied().chain([sorted.len()]);
        for ((&start, end), &coefficient) in starts.iter().zip(ends).zip(coefficients.iter().rev()) {
            column[start..end].fill(coefficient);
        }
    }
}

fn pad(columns: &mut [&mut [BFieldElement]], height: usize) {
    columns.par_iter_mut().enumerate().for_each(|(index, column)| {
        let (filled, padding) = column.split_at_mut(height);
        let is_second_coefficient = index == Column::BezoutCoefficientPolynomialCoefficient1.main_index();
        let value = if index == Column::InstructionType.main_index() {
            PADDING_INDICATOR
        } else {
            // Without any access the Bezout relation is 0 * 1 + 1 * 1 = 1.
            filled.last().copied().unwrap_or(if is_second_coefficient { ONE } else { ZERO })
        };
        padding.fill(value);
    });
}
