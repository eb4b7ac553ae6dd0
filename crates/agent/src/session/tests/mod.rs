#![expect(clippy::needless_raw_string_hashes, reason = "UPDATE_EXPECT=1 writes them")]

mod any_order;
mod certificates;
mod specs;

use super::*;
use crate::story;
use discovery::{Knowledge, NetworkDifference, NetworkView};
use expect_test::{Expect, expect};
use types::{Task, TaskState};
use wire::{Assignments, Difference, Welcome};

/// One event a line; the trace says what follows. Words of a `difference`: `from -> version`, then
/// what changed of it.
struct Story {
    session: Session,
    now: Now,
}

impl Story {
    fn new() -> Self {
        Self::with(Lasting { renew_at: Timestamp(i64::MAX), ..Lasting::default() })
    }

    fn with(lasting: Lasting) -> Self {
        let now = Now::default();
        Self { session: Session::begin([192, 168, 0, 1].into(), lasting, now), now }
    }

    fn event(&mut self, line: &str) -> Event {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        match words[0] {
            "welcome" => Event::Message(SessionMessage::Welcome(Welcome {
                release: wire::Release::own(),
                session: "s".into(),
                node: "n1".into(),
                heartbeat_millis: 5000,
                managers: vec!["m:1".into()],
                data_path_port: 4789,
                ..Welcome::default()
            })),
            "whole" => Event::Message(SessionMessage::Whole(Assignments {
                version: number(1),
                knowledge: Knowledge {
                    networks: [("net".into(), NetworkView::default())].into(),
                    ..Knowledge::default()
                },
                ..Assignments::default()
            })),
            "difference" => difference(&words),
            "logs" => Event::Message(SessionMessage::Logs(LogRequest {
                subscription: words[1].into(),
                ..LogRequest::default()
            })),
            "logs-done" => Event::Message(SessionMessage::LogsDone(words[1].into())),
            "log-ended" => Event::LogEnded(words[1].into()),
            "applied" => Event::Applied(number(1)),
            "done" => Event::CarriedOut { applied: number(1) },
            "trouble" => Event::Trouble(words[1..].join(" ")),
            "status" => {
                let state = TaskState::ALL.into_iter().find(|state| state.as_str() == words[2]);
                let status = TaskStatus { state: state.unwrap(), ..TaskStatus::default() };
                Event::Statuses([(words[1].into(), status)].into())
            }
            "beaten" => {
                // Then the roots, and whether the certificate is to be by another one.
                let trust = words.get(2).map(|roots| Trust {
                    roots: (*roots).to_owned(),
                    issuer: words.get(3).map(|_| types::Issuer::default()),
                });
                let next_millis = number(1) * 1000;
                let reply = HeartbeatReply { next_millis, trust, ..HeartbeatReply::default() };
                Event::Answered(Answer::Heartbeat(Ok(reply)))
            }
            "beat-fails" => Event::Answered(Answer::Heartbeat(Err(Fault::unavailable("away")))),
            "reported" => Event::Answered(Answer::Report(Ok(()))),
            "report-fails" => Event::Answered(Answer::Report(Err(Fault::unavailable("busy")))),
            "report-refused" => Event::Answered(Answer::Report(Err(Fault::not_found("over")))),
            "acknowledged" => Event::Answered(Answer::Acknowledge(Ok(()))),
            "renewed" => Event::Answered(Answer::Renewed(Ok(Timestamp(seconds(number(1)))))),
            "renewal-fails" => Event::Answered(Answer::Renewed(Err(Fault::unavailable("away")))),
            "parting" => Event::Parting,
            "wait" => {
                self.now.uptime += Duration::from_secs(number(1));
                self.now.time = self.now.time.after(Duration::from_secs(number(1)));
                Event::Tick
            }
            "clock" => {
                self.now.time = Timestamp(seconds(number(1)));
                Event::Tick
            }
            other => panic!("unknown event {other}"),
        }
    }

    fn tell(&mut self, lines: &str) -> String {
        story::trace(lines, |line| {
            let event = self.event(line);
            self.session.handle(event, self.now).iter().map(render).collect()
        })
    }
}

fn difference(words: &[&str]) -> Event {
    let number = |at: usize| words[at].parse::<u64>().unwrap();
    let mut difference =
        Difference { from: number(1), version: number(3), ..Difference::default() };
    let networks = &mut difference.knowledge.networks;
    for word in &words[4..] {
        match *word {
            "network" => drop(networks.insert("net".into(), NetworkDifference::default())),
            "task" => drop(difference.tasks.insert("t".into(), Task::default())),
            "withdrawn" => difference.withdrawn = Some(BTreeSet::new()),
            other => panic!("unknown change {other}"),
        }
    }
    Event::Message(SessionMessage::Difference(difference))
}

fn seconds(number: u64) -> i64 {
    i64::try_from(number).unwrap() * 1_000_000_000
}

fn states(statuses: &BTreeMap<TaskId, TaskStatus>) -> String {
    let states = statuses.iter().map(|(id, status)| format!("{id} {}", status.state.as_str()));
    states.collect::<Vec<_>>().join(" ")
}

fn render(output: &Output) -> String {
    match output {
        Output::Order(order) => match order {
            Order::Identify(identity) => format!("identify {}", identity.node),
            Order::Begun { managers, .. } => format!("begun {}", managers.join(" ")),
            Order::Learn { news: News::Whole(_), version } => format!("learn all as {version}"),
            Order::Learn { news: News::Difference(_), version } => {
                format!("learn change as {version}")
            }
            Order::Connected => "connected".into(),
            Order::Work(worker::Event::Whole { .. }) => "work all".into(),
            Order::Work(_) => "work change".into(),
        },
        Output::Call(call) => match call {
            Call::Heartbeat { .. } => "heartbeat".into(),
            Call::Report(Report { statuses, trouble, .. }) => {
                let trouble = trouble.as_ref().map(|trouble| format!(" trouble {trouble:?}"));
                format!("report [{}]{}", states(statuses), trouble.unwrap_or_default())
            }
            Call::Acknowledge(acknowledge) => format!("acknowledge {}", acknowledge.version),
            Call::Renew => "renew".into(),
            Call::Trust(trust) => {
                let renew = trust.issuer.as_ref().map_or("", |_| ", renewing");
                format!("trust {}{renew}", trust.roots)
            }
        },
        Output::Managers(managers) => format!("managers {}", managers.join(" ")),
        Output::PublishLog(request) => format!("publish {}", request.subscription),
        Output::RefuseLog { subscription, error } => format!("refuse {subscription}: {error}"),
        Output::StopLog(subscription) => format!("stop {subscription}"),
        Output::Close(reason) => format!("close: {reason}"),
    }
}

fn check(lines: &str, expected: &Expect) {
    expected.assert_eq(&Story::new().tell(lines));
}

#[test]
fn a_session_begins_and_networks_are_learned_before_tasks() {
    check(
        "welcome\ndone 0\nwhole 1\ndone 0\ndifference 1 -> 2 task network\ndone 0\ndifference 2 -> 3 withdrawn\ndone 0",
        &expect![[r#"
            welcome: identify n1, begun m:1
            done 0: 
            whole 1: learn all as 1, connected, work all, report [] trouble ""
            done 0: 
            difference 1 -> 2 task network: learn change as 2, work change
            done 0: 
            difference 2 -> 3 withdrawn: work change
            done 0: 
        "#]],
    );
}

#[test]
fn nothing_is_taken_before_the_welcome_and_it_comes_once() {
    check(
        "whole 1",
        &expect![[r#"
        whole 1: close: the manager did not say how the session begins
    "#]],
    );
    check(
        "welcome\nwelcome\nwhole 1",
        &expect![[r#"
        welcome: identify n1, begun m:1
        welcome: close: the manager began the session twice
        whole 1: 
    "#]],
    );
}

#[test]
fn a_manager_that_does_not_begin_is_left() {
    check(
        "applied 0\nwait 9\nwait 1\nwelcome",
        &expect![[r#"
        applied 0: 
        wait 9: 
        wait 1: close: the manager does not say how the session begins
        welcome: 
    "#]],
    );
}

#[test]
fn a_difference_to_another_version_ends_the_session() {
    check(
        "welcome\ndifference 0 -> 1 task",
        &expect![[r#"
        welcome: identify n1, begun m:1
        difference 0 -> 1 task: close: a difference to version 0 came too early
    "#]],
    );
    check(
        "welcome\nwhole 1\ndifference 2 -> 3 task",
        &expect![[r#"
        welcome: identify n1, begun m:1
        whole 1: learn all as 1, connected, work all, report [] trouble ""
        difference 2 -> 3 task: close: a difference to version 2 came too early
    "#]],
    );
    check(
        "welcome\nwhole 1\ndifference 1 -> 2 task\ndifference 1 -> 2 task",
        &expect![[r#"
        welcome: identify n1, begun m:1
        whole 1: learn all as 1, connected, work all, report [] trouble ""
        difference 1 -> 2 task: work change
        difference 1 -> 2 task: close: a difference to version 1 came too early
    "#]],
    );
}

#[test]
fn a_version_is_acknowledged_once_it_is_held_and_the_newest_alone() {
    check(
        "welcome
         done 0
         whole 1
         reported
         done 0
         difference 1 -> 2 network
         done 0
         difference 2 -> 3 task
         done 0
         applied 1
         applied 2
         difference 3 -> 4 task
         done 2
         acknowledged
         difference 4 -> 5 network
         acknowledged
         done 2
         applied 3",
        &expect![[r#"
            welcome: identify n1, begun m:1
            done 0: 
            whole 1: learn all as 1, connected, work all, report [] trouble ""
            reported: 
            done 0: 
            difference 1 -> 2 network: learn change as 2
            done 0: 
            difference 2 -> 3 task: work change
            done 0: 
            applied 1: acknowledge 1
            applied 2: 
            difference 3 -> 4 task: work change
            done 2: 
            acknowledged: acknowledge 4
            difference 4 -> 5 network: learn change as 3
            acknowledged: 
            done 2: 
            applied 3: acknowledge 5
        "#]],
    );
}

/// The data plane was told other versions before, e.g. by an agent that was started anew.
#[test]
fn what_was_held_before_says_nothing_of_what_is_being_learned() {
    check(
        "applied 50
         welcome
         done 50
         whole 1
         applied 51
         done 0
         applied 1",
        &expect![[r#"
            applied 50: 
            welcome: identify n1, begun m:1
            done 50: 
            whole 1: learn all as 1, connected, work all, report [] trouble ""
            applied 51: 
            done 0: 
            applied 1: acknowledge 1
        "#]],
    );
}

#[test]
fn versions_of_the_data_plane_rise_from_session_to_session() {
    let mut story = Story::new();
    story.tell("welcome\ndone 0\nwhole 1\ndone 0\ndifference 1 -> 2 network\ndone 0");
    let mut next = Story::with(story.session.end());
    expect![[r#"
        applied 2: 
        welcome: identify n1, begun m:1
        done 2: 
        whole 1: learn all as 3, connected, work all, report [] trouble ""
        done 2: 
        applied 3: acknowledge 1
    "#]]
    .assert_eq(&next.tell("applied 2\nwelcome\ndone 2\nwhole 1\ndone 2\napplied 3"));
}

#[test]
fn reports_go_one_at_a_time_and_not_before_managers_have_spoken() {
    check(
        "welcome
         status a running
         trouble port
         whole 1
         status b running
         status b failed
         trouble more
         reported
         reported
         trouble
         reported",
        &expect![[r#"
            welcome: identify n1, begun m:1
            status a running: 
            trouble port: 
            whole 1: learn all as 1, connected, work all, report [a running] trouble "port"
            status b running: 
            status b failed: 
            trouble more: 
            reported: report [b failed] trouble "more"
            reported: 
            trouble: report [] trouble ""
            reported: 
        "#]],
    );
}

#[test]
fn what_a_report_could_not_say_is_left_to_the_next_session_unless_there_is_newer() {
    let mut story = Story::new();
    expect![[r#"
        welcome: identify n1, begun m:1
        whole 1: learn all as 1, connected, work all, report [] trouble ""
        reported: 
        status a ready: report [a ready]
        status a running: 
        status b ready: 
        reported: report [a running b ready]
        status c ready: 
        status c running: 
        report-refused: close: over
        status d ready: 
    "#]]
    .assert_eq(&story.tell(
        "welcome
         whole 1
         reported
         status a ready
         status a running
         status b ready
         reported
         status c ready
         status c running
         report-refused
         status d ready",
    ));
    expect!["a running b ready c running d ready"]
        .assert_eq(&states(&story.session.end().statuses));
}

/// A manager whose log takes nothing is not asked for a new session, nor all the time.
#[test]
fn what_a_manager_cannot_write_is_said_again_after_a_growing_pause() {
    check(
        "welcome
         trouble port
         whole 1
         report-fails
         status a ready
         wait 1
         status a running
         report-fails
         wait 1
         wait 1
         report-fails
         status b ready
         wait 2
         reported
         status b failed
         report-fails
         wait 1
         reported",
        &expect![[r#"
            welcome: identify n1, begun m:1
            trouble port: 
            whole 1: learn all as 1, connected, work all, report [] trouble "port"
            report-fails: 
            status a ready: 
            wait 1: report [a ready] trouble "port"
            status a running: 
            report-fails: 
            wait 1: report [a running] trouble "port"
            wait 1: 
            report-fails: 
            status b ready: 
            wait 2: heartbeat, report [a running b ready] trouble "port"
            reported: 
            status b failed: report [b failed]
            report-fails: 
            wait 1: report [b failed]
            reported: 
        "#]],
    );
    // It may have been written all the same: then it is to be taken back.
    check(
        "welcome
         whole 1
         reported
         trouble port
         report-fails
         trouble
         wait 1
         reported",
        &expect![[r#"
            welcome: identify n1, begun m:1
            whole 1: learn all as 1, connected, work all, report [] trouble ""
            reported: 
            trouble port: report [] trouble "port"
            report-fails: 
            trouble: 
            wait 1: report [] trouble ""
            reported: 
        "#]],
    );
    let mut story = Story::new();
    story.tell("welcome\nwhole 1");
    for pause in [500, 1000, 2000, 4000, 8000, 8000].map(Duration::from_millis) {
        story.tell("beaten 3600\nreport-fails");
        assert_eq!(story.session.wake(), Some(story.now.uptime + pause));
        story.now.uptime += pause;
        story.now.time = story.now.time.after(pause);
        let outputs = story.session.handle(Event::Tick, story.now);
        assert_eq!(outputs.iter().map(render).collect::<Vec<_>>(), ["report [] trouble \"\""]);
    }
}

#[test]
fn many_statuses_go_in_several_reports() {
    let mut story = Story::new();
    story.tell("welcome\nwhole 1\nreported");
    let status = |number: u32| (format!("{number}").as_str().into(), TaskStatus::default());
    let statuses = (0..2500).map(status).collect();
    let mut outputs = story.session.handle(Event::Statuses(statuses), story.now);
    let mut sizes = Vec::new();
    while let Some(Output::Call(Call::Report(report))) = outputs.pop() {
        sizes.push(report.statuses.len());
        outputs = story.session.handle(Event::Answered(Answer::Report(Ok(()))), story.now);
    }
    assert_eq!(sizes, [1000, 1000, 500]);
}

#[test]
fn heartbeats_go_as_managers_say_and_one_that_fails_ends_the_session() {
    check(
        "welcome
         wait 4
         wait 1
         wait 9
         beaten 2
         wait 1
         wait 1
         beat-fails",
        &expect![[r#"
            welcome: identify n1, begun m:1
            wait 4: 
            wait 1: heartbeat
            wait 9: 
            beaten 2: 
            wait 1: 
            wait 1: heartbeat
            beat-fails: close: away
        "#]],
    );
}

#[test]
fn whoever_leaves_takes_no_more_orders_and_tells_what_becomes_of_its_tasks() {
    check(
        "welcome
         done 0
         whole 1
         reported
         done 0
         parting
         difference 1 -> 2 task network
         whole 7
         applied 1
         status a shutdown",
        &expect![[r#"
            welcome: identify n1, begun m:1
            done 0: 
            whole 1: learn all as 1, connected, work all, report [] trouble ""
            reported: 
            done 0: 
            parting: 
            difference 1 -> 2 task network: 
            whole 7: 
            applied 1: acknowledge 1
            status a shutdown: report [a shutdown]
        "#]],
    );
}

#[test]
fn logs_are_counted() {
    let mut story = Story::new();
    story.tell("welcome");
    for number in 0..LOGS {
        story.tell(&format!("logs {number}"));
    }
    expect![[r#"
        logs a: refuse a: this node sends 64 logs already
        logs-done 3: stop 3
        logs b: publish b
        logs c: refuse c: this node sends 64 logs already
        log-ended b: 
        logs c: publish c
        logs-done b: 
    "#]]
    .assert_eq(&story.tell(
        "logs a
         logs-done 3
         logs b
         logs c
         log-ended b
         logs c
         logs-done b",
    ));
}

#[test]
fn a_manager_that_falls_silent_has_one_period_and_is_not_asked_first_again() {
    let mut story = Story::new();
    story.tell("welcome\ndone 0\nwhole 1\ndone 0\nbeaten 2");
    let mut take = |line: &str| {
        let event = story.event(line);
        let outputs = story.session.handle(event, story.now);
        let limit = outputs.iter().find_map(|output| match output {
            Output::Call(Call::Heartbeat { limit, .. }) => Some(*limit),
            _ => None,
        });
        (limit, story.session.ending(), story.session.is_silent())
    };
    let beat = take("wait 2");
    assert_eq!(beat, (Some(Duration::from_secs(2)), Ending::Useful, false));
    assert_eq!(take("beat-fails"), (None, Ending::Useful, true));
}
