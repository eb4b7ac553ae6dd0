//! Certificates, and which roots are trusted.

use super::*;

#[test]
fn a_certificate_is_renewed_in_time_whatever_the_clock_does() {
    let renew_at = Timestamp(seconds(100));
    let mut story = Story::with(Lasting { renew_at, ..Lasting::default() });
    expect![[r#"
        clock 100: 
        clock 0: 
        welcome: identify n1, begun m:1
        clock 99: 
        clock 100: renew
        clock 1000: 
        renewal-fails: 
        clock 9000: 
        clock 1000: 
        wait 299: heartbeat
        wait 1: renew
        renewed 2000: close: the node's certificate, or what it trusts, is new
    "#]]
    .assert_eq(&story.tell(
        "clock 100
         clock 0
         welcome
         clock 99
         clock 100
         clock 1000
         renewal-fails
         clock 9000
         clock 1000
         wait 299
         wait 1
         renewed 2000",
    ));
    // The next session shows the new certificate.
    let (now, lasting) = (story.now, story.session.end());
    assert_eq!(lasting.renew_at, Timestamp(seconds(1650)));
    let session = Session::begin([192, 168, 0, 1].into(), lasting, now);
    let mut story = Story { session, now };
    expect![[r#"
        welcome: identify n1, begun m:1
        clock 1649: 
        clock 1650: renew
    "#]]
    .assert_eq(&story.tell("welcome\nclock 1649\nclock 1650"));
    // However far off it is, it is looked at soon, as the clock may be set.
    let mut story = Story::new();
    story.tell("welcome\nwait 5\nbeaten 900");
    assert_eq!(story.session.wake(), Some(story.now.uptime + RENEWAL_LOOK));
}

#[test]
fn a_node_takes_the_roots_that_it_is_told_once_at_a_time_and_says_so_in_another_session() {
    check(
        "welcome
         wait 5
         beaten 5 both
         wait 5
         beaten 5 both
         renewed 2000
         wait 5",
        &expect![[r#"
            welcome: identify n1, begun m:1
            wait 5: heartbeat
            beaten 5 both: trust both
            wait 5: heartbeat
            beaten 5 both: 
            renewed 2000: close: the node's certificate, or what it trusts, is new
            wait 5: 
        "#]],
    );
    // What fails is told, and tried again after a pause.
    check(
        "welcome
         whole 1
         done 1
         reported
         acknowledged
         trouble port 80 is taken
         reported
         wait 5
         beaten 5 both renew
         renewal-fails
         reported
         wait 1
         beaten 1 both renew
         wait 1
         beaten 5 both renew
         renewed 2000",
        &expect![[r#"
            welcome: identify n1, begun m:1
            whole 1: learn all as 1, connected, work all, report [] trouble ""
            done 1: acknowledge 1
            reported: 
            acknowledged: 
            trouble port 80 is taken: report [] trouble "port 80 is taken"
            reported: 
            wait 5: heartbeat
            beaten 5 both renew: trust both, renewing
            renewal-fails: report [] trouble "port 80 is taken; the node's certificate, or what it trusts, could not be renewed yet: away"
            reported: 
            wait 1: 
            beaten 1 both renew: 
            wait 1: heartbeat
            beaten 5 both renew: trust both, renewing
            renewed 2000: close: the node's certificate, or what it trusts, is new
        "#]],
    );
}
