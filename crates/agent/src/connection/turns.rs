//! Which manager is asked next.

/// Managers are asked in turn, and out of turn whoever is said to lead.
#[derive(Debug, Default)]
pub(super) struct Turns {
    attempts: usize,
    led_by: Option<String>,
    /// How often somebody was asked out of turn since the last turn.
    followed: usize,
}

/// So often somebody is asked out of turn, one after the other: who leads no more may be said to lead,
/// by itself, too.
const FOLLOWED_MAX: usize = 2;

impl Turns {
    /// Takes what was said of who leads.
    pub(super) fn follow(&mut self, leader: Option<String>) {
        self.led_by = leader;
    }

    /// Asks this one again, first of all: it has just been of use.
    pub(super) fn again(&mut self, manager: String) {
        self.led_by = Some(manager);
        self.followed = 0;
    }

    /// The address of the one to ask; none where nobody is known.
    pub(super) fn next(&mut self, managers: &[String]) -> Option<String> {
        let led_by = self.led_by.take().filter(|_| self.followed < FOLLOWED_MAX);
        if led_by.is_some() {
            self.followed += 1;
            return led_by;
        }
        self.followed = 0;
        self.attempts += 1;
        let turn = (self.attempts - 1).checked_rem(managers.len())?;
        managers.get(turn).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_said_to_lead_is_asked_first_and_nobody_is_asked_for_ever() {
        let managers = ["a", "b", "c"].map(str::to_owned);
        let mut turns = Turns::default();
        assert_eq!(turns.next(&managers).as_deref(), Some("a"));
        turns.follow(Some("c".to_owned()));
        assert_eq!(turns.next(&managers).as_deref(), Some("c"));
        assert_eq!(turns.next(&managers).as_deref(), Some("b"));
        // One that says of itself that it leads, and does not.
        let asked: Vec<_> = std::iter::repeat_with(|| {
            turns.follow(Some("b".to_owned()));
            turns.next(&managers).unwrap()
        })
        .take(10)
        .collect();
        assert_eq!(asked, ["b", "b", "c", "b", "b", "a", "b", "b", "b", "b"]);
        assert_eq!(turns.next(&[]), None);
        // One that was of use, however often.
        for _ in 0..9 {
            turns.again("c".to_owned());
            assert_eq!(turns.next(&managers).as_deref(), Some("c"));
        }
    }
}
