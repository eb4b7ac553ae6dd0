//! Names and numbers of signals.

use types::Fault;

pub(crate) const KILL: i32 = 9;
pub(crate) const TERM: i32 = 15;

const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
const REALTIME_FIRST: i32 = 34;
const REALTIME_LAST: i32 = 64;

/// Reads `SIGTERM`, `term`, `15`, `SIGRTMIN+3`.
pub(crate) fn parse(text: &str) -> Result<i32, Fault> {
    let invalid = || Fault::invalid(format!("invalid signal: {text}"));
    if let Ok(number) = text.parse::<i32>() {
        return Some(number).filter(|n| (1..=REALTIME_LAST).contains(n)).ok_or_else(invalid);
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(index) = NAMES.iter().position(|known| *known == name) {
        return i32::try_from(index + 1).map_err(|_overflow| invalid());
    }
    let realtime = if let Some(offset) = name.strip_prefix("RTMIN") {
        offset_of(offset).map(|offset| REALTIME_FIRST + offset)
    } else if let Some(offset) = name.strip_prefix("RTMAX") {
        offset_of(offset).map(|offset| REALTIME_LAST + offset)
    } else {
        None
    };
    realtime.filter(|n| (REALTIME_FIRST..=REALTIME_LAST).contains(n)).ok_or_else(invalid)
}

fn offset_of(text: &str) -> Option<i32> {
    if text.is_empty() { Some(0) } else { text.parse().ok().filter(|n: &i32| n.abs() < 64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read_in_every_form_that_docker_takes() {
        for (text, number) in [
            ("SIGTERM", 15),
            ("kill", 9),
            ("3", 3),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("SYS", 31),
        ] {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        for bad in ["", "SIGNO", "0", "65", "RTMIN+x", "RTMIN+63"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
