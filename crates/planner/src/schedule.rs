//! When a job is to be run: the five fields of cron, in UTC, as labels of the service say it.

use chrono::{DateTime, Utc};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use types::{SCHEDULE_LABEL, ServiceSpec, Timestamp};

/// What begins the names of all labels of schedules.
const FAMILY: &str = "skep.schedule.";
/// The label that says what becomes of a time when the run before still goes on.
const OVERLAP_LABEL: &str = "skep.schedule.overlap";
/// The label that names the time zone.
const ZONE_LABEL: &str = "skep.schedule.timezone";

/// When a job is to be run.
#[derive(Clone, Debug)]
pub struct Schedule {
    cron: Cron,
    pub(crate) overlap: Overlap,
}

/// What becomes of a time when the run before still goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Overlap {
    /// The job is not run.
    #[default]
    Skip,
    /// The run before is stopped.
    Replace,
}

impl Schedule {
    /// The schedule of a service, or what is wrong with it; `None`: it has none.
    pub fn of(spec: &ServiceSpec) -> Result<Option<Self>, String> {
        let label = |name: &str| spec.labels.get(name).map(|text| text.trim());
        let known = [OVERLAP_LABEL, ZONE_LABEL];
        let is_unknown =
            |name: &&String| name.starts_with(FAMILY) && !known.contains(&name.as_str());
        if let Some(name) = spec.labels.keys().find(is_unknown) {
            return Err(format!("label {name} is not known: a schedule has {}", known.join(", ")));
        }
        let Some(text) = label(SCHEDULE_LABEL) else { return Ok(None) };
        if !spec.mode.is_job() {
            let modes = "replicated-job or global-job";
            return Err(format!("label {SCHEDULE_LABEL}: only a service of mode {modes} has one"));
        }
        let overlap = match label(OVERLAP_LABEL) {
            None | Some("skip") => Overlap::Skip,
            Some("replace") => Overlap::Replace,
            Some(other) => {
                return Err(format!(
                    "label {OVERLAP_LABEL}: \"{other}\" is neither skip nor replace"
                ));
            }
        };
        if let Some(zone) = label(ZONE_LABEL).filter(|zone| !["UTC", "Etc/UTC"].contains(zone)) {
            return Err(format!("label {ZONE_LABEL}: \"{zone}\" is not supported, only UTC"));
        }
        let parser =
            CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let wrong =
            |why: String| format!("label {SCHEDULE_LABEL}: \"{text}\" is no schedule: {why}");
        let cron = parser.parse(text).map_err(|error| wrong(error.to_string()))?;
        let schedule = Self { cron, overlap };
        if schedule.after(Timestamp(0)).is_none() {
            return Err(wrong("there is no such day".to_owned()));
        }
        Ok(Some(schedule))
    }

    /// The first time after this one.
    pub(crate) fn after(&self, time: Timestamp) -> Option<Timestamp> {
        time_of(self.cron.find_next_occurrence(&date(time), false).ok()?)
    }

    /// The last time until this one.
    pub(crate) fn until(&self, time: Timestamp) -> Option<Timestamp> {
        time_of(self.cron.find_previous_occurrence(&date(time), true).ok()?)
    }
}

fn date(time: Timestamp) -> DateTime<Utc> {
    DateTime::from_timestamp_nanos(time.0)
}

fn time_of(date: DateTime<Utc>) -> Option<Timestamp> {
    date.timestamp_nanos_opt().map(Timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::{Labels, ServiceMode};

    fn spec(labels: &[(&str, &str)]) -> ServiceSpec {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let labels: Labels = labels.iter().map(pair).collect();
        ServiceSpec { labels, mode: ServiceMode::GlobalJob, ..ServiceSpec::default() }
    }

    fn at(text: &str) -> Timestamp {
        let date = DateTime::parse_from_rfc3339(text).unwrap();
        Timestamp(date.timestamp_nanos_opt().unwrap())
    }

    #[test]
    fn times_are_those_of_cron_in_utc() {
        let now = at("2026-11-27T16:30:00.5Z");
        for (text, before, after) in [
            ("* * * * *", "2026-11-27T16:30:00Z", "2026-11-27T16:31:00Z"),
            ("*/20 * * * *", "2026-11-27T16:20:00Z", "2026-11-27T16:40:00Z"),
            ("30 3 * * 1-5", "2026-11-27T03:30:00Z", "2026-11-30T03:30:00Z"),
            ("0 0 29 2 *", "2024-02-29T00:00:00Z", "2028-02-29T00:00:00Z"),
            // Either day, where both are said.
            ("0 0 1 * 6", "2026-11-21T00:00:00Z", "2026-11-28T00:00:00Z"),
            ("@hourly", "2026-11-27T16:00:00Z", "2026-11-27T17:00:00Z"),
            ("@yearly", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        ] {
            let schedule = Schedule::of(&spec(&[(SCHEDULE_LABEL, text)])).unwrap().unwrap();
            assert_eq!(schedule.until(now).unwrap().rfc3339(), at(before).rfc3339(), "{text}");
            assert_eq!(schedule.after(now), Some(at(after)), "{text}");
            assert_eq!(schedule.until(at(after)), Some(at(after)), "{text}");
            assert_eq!(schedule.overlap, Overlap::Skip);
        }
    }

    #[test]
    fn what_is_wrong_is_said_by_the_name_of_its_label() {
        let every = (SCHEDULE_LABEL, "* * * * *");
        for (labels, words) in [
            (&[(SCHEDULE_LABEL, "soon")][..], "label skep.schedule: \"soon\" is no schedule"),
            (&[(SCHEDULE_LABEL, "")], "is no schedule"),
            (&[(SCHEDULE_LABEL, "61 * * * *")], "is no schedule"),
            (&[(SCHEDULE_LABEL, "* * * *")], "is no schedule"),
            (&[(SCHEDULE_LABEL, "* * * * * *")], "is no schedule"),
            (&[(SCHEDULE_LABEL, "0 0 30 2 *")], "there is no such day"),
            (&[every, ("skep.schedule.overlap", "both")], "neither skip nor replace"),
            (&[every, ("skep.schedule.timezone", "Europe/Berlin")], "not supported, only UTC"),
            (&[every, ("skep.schedule.jitter", "5m")], "label skep.schedule.jitter is not known"),
        ] {
            let said = Schedule::of(&spec(labels)).unwrap_err();
            assert!(said.contains(words), "{labels:?}: {said}");
        }
        let kept = ServiceSpec { mode: ServiceMode::Global, ..spec(&[every]) };
        assert!(Schedule::of(&kept).unwrap_err().contains("only a service of mode"));
        let replace = spec(&[every, ("skep.schedule.overlap", "replace")]);
        assert_eq!(Schedule::of(&replace).unwrap().unwrap().overlap, Overlap::Replace);
        assert!(Schedule::of(&ServiceSpec::default()).unwrap().is_none());
    }
}
