//! What tests and benchmarks share.

use types::IdSource;

/// Ids by number, which do not come in order.
#[derive(Clone)]
pub(crate) struct Count(pub(crate) u128);

impl IdSource for Count {
    fn next_bits(&mut self) -> u128 {
        self.0 += 1;
        self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
    }
}
