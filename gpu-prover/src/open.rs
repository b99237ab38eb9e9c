//! Opening rows of the committed tables.

use triton_vm::prelude::XFieldElement;

use crate::domain::NUM_COSETS;
use crate::error::ProtocolError;
use crate::matrix::Matrix;

/// Row `index` of the FRI domain of a table that lies in its eight cosets.
///
/// # Errors
/// If the table does not have `WIDTH` columns.
pub fn row_of_cosets<T, const WIDTH: usize>(cosets: &[Matrix<T>; NUM_COSETS], index: usize) -> Result<[T; WIDTH], ProtocolError>
where
    T: Copy + Send + Sync,
{
    let row = cosets[index % NUM_COSETS].row(index / NUM_COSETS);
    row.try_into().map_err(|_| ProtocolError::Internal("a committed table has another number of columns"))
}

/// A row of values as the array a proof item takes.
///
/// # Errors
/// If there are not `WIDTH` values.
pub fn fixed_width<const WIDTH: usize>(row: &[XFieldElement]) -> Result<[XFieldElement; WIDTH], ProtocolError> {
    row.try_into().map_err(|_| ProtocolError::Internal("a row has another number of columns than the proof's format"))
}

/// [`fixed_width`] on the heap, for the wide rows.
///
/// # Errors
/// If there are not `WIDTH` values.
pub fn boxed<const WIDTH: usize>(row: Vec<XFieldElement>) -> Result<Box<[XFieldElement; WIDTH]>, ProtocolError> {
    row.into_boxed_slice()
        .try_into()
        .map_err(|_| ProtocolError::Internal("a row has another number of columns than the proof's format"))
}
