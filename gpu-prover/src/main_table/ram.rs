//! RAM table: all accesses to memory, sorted by (pointer, clock), with the Bezout argument that each pointer's accesses
//! form one contiguous region.

use rayon::prelude::*;
use triton_air::table::ram::PADDING_INDICATOR;
use triton_air::table_column::MasterMainColumn;
use triton_air::table_column::RamMainColumn as Column;
use triton_vm::aet::AlgebraicExecutionTrace;
use triton_vm::prelude::{BFieldElement, FiniteField};
use triton_vm::table::ram::bezout_coefficient_polynomials_coefficients;

use super::{ONE, ZERO, clock_jumps};

/// Fill and pad: padding repeats the last row, marked by its instruction type. Returns the clock jump differences.
pub(super) fn fill(
    columns: &mut [&mut [BFieldElement]],
    aet: &AlgebraicExecutionTrace,
) -> Vec<u32> {
    let trace = aet.ram_trace.view();
    let order = super::sorted_rows(
        &trace,
        Column::RamPointer.main_index(),
        Column::CLK.main_index(),
    );
    super::gather_rows(columns, &trace, &order);
    fill_contiguity_argument(columns, &order);
    pad(columns, order.len());
    clock_jumps(&order)
}

/// Inverses of the pointer differences and the Bezout coefficients, for a table sorted in `order`.
fn fill_contiguity_argument(columns: &mut [&mut [BFieldElement]], order: &[(u64, u32, u32)]) {
    // The first row of each region, and one past the end.
    let starts: Vec<usize> = (0..order.len())
        .filter(|&row| row == 0 || order[row].0 != order[row - 1].0)
        .collect();
    let pointers: Vec<_> = starts
        .iter()
        .map(|&row| BFieldElement::new(order[row].0))
        .collect();

    // Only the last row of a region, except the very last, has a difference to its successor.
    let differences = pointers.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let inverses = BFieldElement::par_batch_inversion(differences);
    let inverse_column = &mut *columns[Column::InverseOfRampDifference.main_index()];
    inverse_column[..order.len()].fill(ZERO);
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
        let ends = starts.iter().skip(1).copied().chain([order.len()]);
        for ((&start, end), &coefficient) in starts.iter().zip(ends).zip(coefficients.iter().rev())
        {
            column[start..end].fill(coefficient);
        }
    }
}

fn pad(columns: &mut [&mut [BFieldElement]], height: usize) {
    columns
        .par_iter_mut()
        .enumerate()
        .for_each(|(index, column)| {
            let (filled, padding) = column.split_at_mut(height);
            let is_second_coefficient =
                index == Column::BezoutCoefficientPolynomialCoefficient1.main_index();
            let value = if index == Column::InstructionType.main_index() {
                PADDING_INDICATOR
            } else {
                // Without any access the Bezout relation is 0 * 1 + 1 * 1 = 1.
                filled
                    .last()
                    .copied()
                    .unwrap_or(if is_second_coefficient { ONE } else { ZERO })
            };
            padding.fill(value);
        });
}
