//! Names for the field elements that occur everywhere.

use triton_vm::prelude::{BFieldElement, XFieldElement};

/// 0 in the base field.
pub(crate) const ZERO: BFieldElement = BFieldElement::new(0);

/// 1 in the base field.
pub(crate) const ONE: BFieldElement = BFieldElement::new(1);

/// 0 in the extension field.
pub(crate) const X_ZERO: XFieldElement = XFieldElement::new([ZERO; 3]);

/// 1 in the extension field.
pub(crate) const X_ONE: XFieldElement = XFieldElement::new([ONE, ZERO, ZERO]);
