//! Evaluation of all committed polynomials outside of their domain.

use std::ops::Mul;

use rayon::prelude::*;
use triton_vm::prelude::{BFieldElement, XFieldElement};
use twenty_first::math::traits::ModPowU64;

use crate::domain::Domains;
use crate::field::X_ZERO;
use crate::matrix::Matrix;

/// The polynomial with these coefficients (lowest degree first) in `point`, by Horner's rule.
pub fn evaluate<F>(coefficients: &[F], point: XFieldElement) -> XFieldElement
where
    F: Copy,
    XFieldElement: std::ops::Add<F, Output = XFieldElement> + Mul<XFieldElement, Output = XFieldElement>,
{
    coefficients.iter().rev().fold(X_ZERO, |value, &coefficient| value * point + coefficient)
}

/// All randomized columns in `point`: `C(point) + (point^n - 1) r(point)`, by column.
///
/// `coefficients` holds the interpolants on the trace domain, `randomizers` the coefficients of each column's `r`.
pub fn evaluate_columns<F>(
    domains: &Domains,
    coefficients: &Matrix<F>,
    randomizers: &[&[F]],
    point: XFieldElement,
) -> Vec<XFieldElement>
where
    F: Copy + Send + Sync,
    XFieldElement: std::ops::Add<F, Output = XFieldElement>,
{
    let zerofier = point.mod_pow_u64(domains.trace_length() as u64) - BFieldElement::new(1);
    coefficients
        .par_columns()
        .zip(randomizers)
        .map(|(interpolant, randomizer)| {
            let mut value = evaluate(interpolant, point);
            value += zerofier * evaluate(randomizer, point);
            value
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lde;
    use crate::randomness;

    #[test]
    fn columns_agree_with_the_extension_where_they_meet() {
        let domains = Domains::new(512).expect("a legal height");
        let table: Matrix<BFieldElement> =
            Matrix::from_column_major(512, randomness::column([9; 32], 512)).expect("one column");
        let randomizer: Vec<BFieldElement> = randomness::column([10; 32], 105);
        let coefficients = lde::interpolate(&table);
        let on_coset = lde::extend_coset(&domains, 3, &coefficients, &[&randomizer]);
        let point = domains.fri_point(3 + 8 * 200);
        let value = evaluate_columns(&domains, &coefficients, &[&randomizer], point.lift())[0];
        assert_eq!(value, on_coset.column(0)[200].lift());
    }
}
