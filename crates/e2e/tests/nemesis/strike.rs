//! Faults that are more than a beginning and an end.

use crate::chance::Chance;
use crate::client::Book;
use crate::clock::{self, CLOCKED};
use crate::disk::{SMALL, SmallDisk};
use crate::fault::{Fault, replace, set_snapshots};
use crate::{MANAGERS, SNAPSHOTS};
use e2e::{Lab, until};
use std::time::Duration;

/// A clock that is set, and stays so, is off by no more seconds than certificates bear: they begin an
/// hour before they are made.
const JUMP_MAX: u64 = 50 * 60;
const DAY: i64 = 24 * 3600;
/// Settings are taken as soon as somebody leads.
const CHANGE_MAX: Duration = Duration::from_mins(1);

/// Makes one of them so from its beginning to its end; says whether it is one of them.
pub(crate) fn strike(
    fault: Fault,
    (lab, disk): (&Lab, &SmallDisk),
    book: &Book,
    (victim, chance): (u8, &mut Chance),
) -> bool {
    let other = |by: u8| 1 + (victim - 1 + by) % MANAGERS;
    match fault {
        Fault::Slow => {
            book.tell(format!("Slow node-{SMALL}"));
            for _ in 0..4 + chance.below(8) {
                disk.freeze();
                std::thread::sleep(chance.millis(50, 600));
                disk.thaw();
                std::thread::sleep(chance.millis(20, 150));
            }
            book.tell(format!("Slow node-{SMALL} is over"));
        }
        Fault::Clock => {
            // One of a day is over soon: meanwhile the manager and the others may not believe each
            // other's certificates, and who has a connection keeps it.
            for far in [Some(DAY), Some(-DAY), None] {
                let near = chance.below(2 * JUMP_MAX).cast_signed() - JUMP_MAX.cast_signed();
                let seconds = near + far.unwrap_or(0);
                book.tell(format!("Clock node-{CLOCKED} {seconds:+} s"));
                clock::set(lab, seconds);
                until("the clock has jumped", CHANGE_MAX, || clock::is_seen(lab, seconds));
                std::thread::sleep(chance.millis(500, 3_000));
            }
        }
        Fault::Transfer => {
            let name = format!("node-{victim}");
            let moved = lab.skep(&["raft", "transfer", &name]);
            let said = if moved.ok { moved.out } else { moved.err };
            book.tell(format!("Transfer to {name}: {}", said.trim()));
        }
        Fault::Snapshot => {
            let name = format!("node-{victim}");
            book.tell(format!("Snapshot {name}"));
            lab.lab(&["cut", &name]).good();
            let set = |what: &str, snapshots| {
                until(what, CHANGE_MAX, || set_snapshots(lab, other(1), snapshots));
            };
            set("the log is a snapshot all the time", (1, 1));
            std::thread::sleep(chance.millis(500, 3_000));
            lab.lab(&["heal", &name]).good();
            set("snapshots are made as before", SNAPSHOTS);
            book.tell(format!("Snapshot {name} is over"));
        }
        Fault::Replace => {
            // Neither its log nor its clock can be moved to another machine.
            let victim = if [SMALL, CLOCKED].contains(&victim) { 1 } else { victim };
            book.tell(format!("Replace node-{victim}"));
            let other = |by: u8| 1 + (victim - 1 + by) % MANAGERS;
            replace(lab, book, victim, (other(1), other(2)));
        }
        Fault::Kill
        | Fault::Restart
        | Fault::Cut
        | Fault::Deaf
        | Fault::Mute
        | Fault::Stop
        | Fault::Full => return false,
    }
    true
}
