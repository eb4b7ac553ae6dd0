//! Memory: what is enough for a container, and swap, as Docker's two ways of saying it.

use types::Fault;

/// The least that a container can do with.
const MIN: i64 = 6 << 20;

/// Refuses limits that are too small; what is not positive is no limit.
pub(crate) fn check(limit: i64, reservation: i64) -> Result<(), Fault> {
    let small = |bytes: i64| (1..MIN).contains(&bytes);
    if small(limit) {
        return Err(Fault::invalid("Minimum memory limit allowed is 6MB"));
    }
    if small(reservation) {
        return Err(Fault::invalid("Minimum memory reservation allowed is 6MB"));
    }
    if 0 < limit && limit < reservation {
        return Err(Fault::invalid(
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ));
    }
    Ok(())
}

/// Reads `MemorySwap` of a plain container: memory and swap together, -1 for no limit, 0 for
/// Docker's own.
pub(crate) fn swap(memory: i64, both: i64) -> Result<Option<i64>, Fault> {
    match (memory, both) {
        (_, 0) => Ok(None),
        (_, -1) => Ok(Some(-1)),
        (memory, 1..) if memory <= 0 => Err(Fault::invalid(
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        )),
        (memory, 1..) if both < memory => Err(Fault::invalid(
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        )),
        (memory, 1..) => Ok(Some(both - memory)),
        _ => Err(Fault::invalid(format!("Invalid value: {both}, MemorySwap is at least -1"))),
    }
}

/// What `MemorySwap` was.
pub(crate) fn memory_swap(memory: i64, swap: Option<i64>) -> i64 {
    match swap {
        None if 0 < memory => memory.saturating_mul(2),
        None => 0,
        Some(-1) => -1,
        Some(swap) => memory.saturating_add(swap),
    }
}

/// Reads `MemorySwappiness`; -1 is the node's own, as if nothing were said.
pub(crate) fn swappiness(wanted: Option<i64>) -> Result<Option<i64>, Fault> {
    match wanted {
        None | Some(-1) => Ok(None),
        Some(0..=100) => Ok(wanted),
        Some(other) => Err(Fault::invalid(format!(
            "Invalid value: {other}, valid memory swappiness range is 0-100"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_is_what_is_over_memory() {
        assert_eq!(swap(100, 0), Ok(None));
        assert_eq!(swap(100, -1), Ok(Some(-1)));
        assert_eq!(swap(100, 100), Ok(Some(0)));
        assert_eq!(swap(100, 150), Ok(Some(50)));
        for (memory, both) in [(100, 99), (0, 100), (0, -2), (100, -2)] {
            assert!(swap(memory, both).is_err(), "{memory} {both}");
        }
        for both in [-1, 100, 150] {
            assert_eq!(memory_swap(100, swap(100, both).unwrap()), both);
        }
        assert_eq!((memory_swap(100, None), memory_swap(0, None)), (200, 0));
    }

    #[test]
    fn swappiness_is_a_percentage() {
        assert_eq!(swappiness(Some(-1)), Ok(None));
        assert_eq!(swappiness(Some(0)), Ok(Some(0)));
        assert!(swappiness(Some(101)).is_err() && swappiness(Some(-2)).is_err());
    }
}
