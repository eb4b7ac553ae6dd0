//! Cases of nodes that are drained with pace.

use crate::testing::check;
use expect_test::expect;

#[test]
fn a_drained_node_with_pace_loses_as_many_tasks_as_an_update_would_replace() {
    let case = |service: &str| {
        format!(
            "
            node n1 drain paced
            node n2
            service web replicas=3 {service}
            task web.1 running n1
            task web.2 running n1
            task web.3 running n2
            "
        )
    };
    check(
        &case(""),
        &expect![[r#"
        + web.1 assigned ready n2
    "#]],
    );
    check(
        &case("parallelism=0"),
        &expect![[r#"
        + web.1 assigned ready n2
        + web.2 assigned ready n2
    "#]],
    );
    check(
        &case("order=start-first"),
        &expect![[r#"
        + web.1 assigned running n2 trial 1s
    "#]],
    );
}

#[test]
fn stop_first_stops_a_task_when_the_next_one_is_prepared_elsewhere() {
    let case = |old: &str, new: &str| {
        format!(
            "
            node n1 drain paced
            node n2
            service web replicas=2
            task web.1 {old}
            task web.1 {new}
            task web.2 running n1
            "
        )
    };
    check(&case("running n1", "preparing n2 desired=ready"), &expect![[r#""#]]);
    check(
        &case("running n1", "ready n2 desired=ready"),
        &expect![[r#"
        ~ web.1 running shutdown n1
    "#]],
    );
    check(&case("running n1 desired=shutdown", "ready n2 desired=ready"), &expect![[r#""#]]);
    check(
        &case("shutdown n1 desired=shutdown", "ready n2 desired=ready"),
        &expect![[r#"
        ~ web.1 ready running n2
    "#]],
    );
    check(
        &case("shutdown n1 desired=shutdown", "running n2"),
        &expect![[r#"
        + web.2 assigned ready n2
    "#]],
    );
}

#[test]
fn start_first_stops_a_task_when_the_next_one_serves_elsewhere() {
    let case = |new: &str| {
        format!(
            "
            node n1 drain paced
            node n2
            service web replicas=2 order=start-first update-delay=10
            task web.1 running n1
            task web.1 {new} n2 since=95
            task web.2 running n1
            "
        )
    };
    check(&case("starting"), &expect![[r#""#]]);
    check(
        &case("running"),
        &expect![[r#"
        ~ web.1 running shutdown n1
        wake 105s
    "#]],
    );
    check(
        &case("failed"),
        &expect![[r#"
        + web.1 assigned ready n2 at 105s trial 1s
        ~ web.1 failed shutdown n2 since 95s
        wake 105s
    "#]],
    );
}

#[test]
fn what_has_no_place_elsewhere_stays_and_says_why() {
    let case = |order: &str| {
        format!(
            "
            node n1 drain paced memory=100
            node n2 memory=10
            service web replicas=2 memory=20 order={order}
            task web.1 running n1
            task web.2 running n1
            "
        )
    };
    check(
        &case("stop-first"),
        &expect![[r#"
            + web.1 pending ready - error: no suitable node (1 node not available for new tasks; insufficient resources on 1 node). n2: 10 B of 10 B memory free; n1: is drained
        "#]],
    );
    check(
        &case("start-first"),
        &expect![[r#"
            + web.1 pending running - trial 1s error: no suitable node (1 node not available for new tasks; insufficient resources on 1 node). n2: 10 B of 10 B memory free; n1: is drained
        "#]],
    );
}

#[test]
fn a_task_that_does_not_serve_moves_whatever_the_pace() {
    check(
        "
        node n1 drain paced
        node n2
        service web replicas=4
        task web.1 running n1
        task web.2 starting n1
        task web.3 ready n1 desired=ready at=104
        task web.4 running n2
        ",
        &expect![[r#"
            + web.2 assigned ready n2
            + web.3 assigned ready n2 at 104s
            wake 104s
        "#]],
    );
}

#[test]
fn a_slot_that_is_lost_elsewhere_counts_and_one_that_has_ended_for_good_does_not() {
    let case = |state: &str| {
        format!(
            "
            node n1 drain paced
            node n2
            service web replicas=2 restart=on-failure
            task web.1 running n1
            task web.2 {state} n2
            "
        )
    };
    check(&case("starting"), &expect![[r#""#]]);
    check(
        &case("complete"),
        &expect![[r#"
        + web.1 assigned ready n2
    "#]],
    );
}

#[test]
fn a_move_that_failed_for_good_keeps_no_other_slot_back() {
    check(
        "
        node n1 drain paced
        node n2
        service web replicas=2 restart=none order=start-first
        task web.1 running n1
        task web.1 failed n2
        task web.2 running n1
        ",
        &expect![[r#"
            + web.2 assigned running n2 trial 1s
        "#]],
    );
}

#[test]
fn a_global_service_has_its_task_there_until_no_other_is_left() {
    let case = |task: &str| {
        format!(
            "
            node n1 drain paced
            node n2
            service agent global
            service web replicas=1 order=start-first
            task agent.0 running n1
            task agent.0 running n2
            {task}
            task web.1 running n2
            "
        )
    };
    check(&case("task web.1 running n1 desired=shutdown"), &expect![[r#""#]]);
    check(
        &case("task web.1 shutdown n1 desired=shutdown"),
        &expect![[r#"
        ~ agent.0 running shutdown n1
    "#]],
    );
}

#[test]
fn a_node_that_is_active_again_keeps_what_has_not_moved() {
    check(
        "
        node n1
        node n2
        service web replicas=3
        task web.1 running n1
        task web.1 ready n2 desired=ready
        task web.2 running n2
        task web.3 starting n1
        task web.3 running n2
        ",
        &expect![[r#"
            ~ web.1 ready shutdown n2
            ~ web.3 starting shutdown n1
        "#]],
    );
}

#[test]
fn a_node_that_is_lost_or_leaves_or_is_drained_at_once_gives_up_all() {
    for node in ["down drain paced", "drain", "leaving drain paced"] {
        check(
            &format!(
                "
                node n1 {node}
                node n2
                service web replicas=2
                task web.1 running n1
                task web.1 ready n2 desired=ready
                task web.2 running n1
                "
            ),
            &expect![[r#"
                + web.2 assigned running n2
                ~ web.1 ready running n2
                ~ web.1 running shutdown n1
                ~ web.2 running shutdown n1
            "#]],
        );
    }
}

#[test]
fn an_update_goes_first_and_one_that_is_paused_keeps_its_old_tasks() {
    let case = |update: &str| {
        format!(
            "
            node n1 drain paced
            node n2
            service web replicas=3 image=two update={update} parallelism=2
            task web.1 running n2 image=two born=55
            task web.2 running n1 image=one
            task web.3 running n1 image=two born=55
            "
        )
    };
    check(
        &case("updating"),
        &expect![[r#"
        + web.2 assigned ready n2 two
        ~ web.2 running shutdown n1 one
        wake 170s
    "#]],
    );
    check(
        &case("paused"),
        &expect![[r#"
        + web.3 assigned ready n2 two
    "#]],
    );
}

#[test]
fn an_update_is_not_judged_by_a_slot_that_moves() {
    // It was begun with another published port, say.
    check(
        "
        node n1 drain paced
        node n2 pause
        service web replicas=1 order=start-first update=updating began=20
        task web.1 running n1
        task web.1 pending - born=10 error=no_suitable_node_(2_nodes_not_available_for_new_tasks)._n1:_is_drained;_n2:_is_paused
        ",
        &expect![[r#"
            ~ web update completed: update completed
        "#]],
    );
}

#[test]
fn a_slot_moves_on_from_one_drained_node_to_the_next() {
    check(
        "
        node n1 drain paced
        node n2 drain paced
        node n3
        service web replicas=1 order=start-first
        task web.1 running n1
        task web.1 starting n2
        ",
        &expect![[r#"
            + web.1 assigned running n3 trial 1s
            ~ web.1 starting shutdown n2
        "#]],
    );
}
