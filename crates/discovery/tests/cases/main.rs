//! Cases as text: what is known in, what the kernel should hold and what names lead to out.

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::needless_raw_string_hashes, reason = "UPDATE_EXPECT=1 writes them")]

mod text;

use discovery::{Here, Knowledge, project};
use expect_test::expect;
use text::check;

#[test]
fn a_name_is_unknown_then_refuses_then_serves() {
    // Nothing of the service yet: its VIP is there, its name is not.
    check(
        "
        network net wp_default 10.0.1.0/24
        service net dbcluster 10.0.1.2
        sandbox wp - net=10.0.1.9
        ask wp A dbcluster
        ask wp A tasks.dbcluster
        ",
        &expect![[r#"
            overlay net vni 4097 peers {} remotes {}
            sandbox wp on ["net"] default route true vips {10.0.1.2: []}
            wp dbcluster: NxDomain
            wp tasks.dbcluster: NxDomain
        "#]],
    );
    // A task starts: the name is there, and the VIP without back ends refuses.
    check(
        "
        network net wp_default 10.0.1.0/24
        service net dbcluster 10.0.1.2
        task net t1 dbcluster.1 10.0.1.3 n2 starting
        sandbox wp - net=10.0.1.9
        ask wp A dbcluster
        ask wp A dbcluster.1
        ",
        &expect![[r#"
            overlay net vni 4097 peers {192.168.0.2} remotes {10.0.1.3: 192.168.0.2}
            sandbox wp on ["net"] default route true vips {10.0.1.2: []}
            wp dbcluster: [10.0.1.2]
            wp dbcluster.1: Forward
        "#]],
    );
    check(
        "
        network net wp_default 10.0.1.0/24
        service net dbcluster 10.0.1.2
        task net t1 dbcluster.1 10.0.1.3 n2 serving
        sandbox wp - net=10.0.1.9
        ask wp A dbcluster
        ask wp A tasks.dbcluster
        ask wp A dbcluster.1
        ask wp A dbcluster.1.t1
        ",
        &expect![[r#"
            overlay net vni 4097 peers {192.168.0.2} remotes {10.0.1.3: 192.168.0.2}
            sandbox wp on ["net"] default route true vips {10.0.1.2: [10.0.1.3]}
            wp dbcluster: [10.0.1.2]
            wp tasks.dbcluster: [10.0.1.3]
            wp dbcluster.1: [10.0.1.3]
            wp dbcluster.1.t1: [10.0.1.3]
        "#]],
    );
}

#[test]
fn a_draining_task_keeps_its_route_and_loses_its_traffic() {
    check(
        "
        network net front 10.0.1.0/24
        service net web 10.0.1.2
        task net t1 web.1 10.0.1.3 n2 serving
        task net t2 web.2 10.0.1.4 n3 draining
        task net t3 web.3 10.0.1.5 n1 serving
        sandbox c3 t3 net=10.0.1.5
        hidden t3
        ask c3 A tasks.web
        ",
        &expect![[r#"
            overlay net vni 4097 peers {192.168.0.2, 192.168.0.3} remotes {10.0.1.3: 192.168.0.2, 10.0.1.4: 192.168.0.3}
            sandbox c3 on ["net"] default route true vips {10.0.1.2: [10.0.1.3]}
            c3 tasks.web: [10.0.1.3]
        "#]],
    );
}

#[test]
fn names_are_found_by_every_spelling_and_only_on_own_networks() {
    check(
        "
        network net Front 10.0.1.0/24
        network other back 10.0.2.0/24 internal
        service net Web 10.0.1.2 www
        service net zoo dnsrr
        service other db 10.0.2.2
        task net t1 Web.1 10.0.1.3 n1 serving web-host
        task net t2 zoo.1 10.0.1.5 n2 serving
        task net t3 zoo.2 10.0.1.6 n2 serving
        task net t4 zoo.3 10.0.1.7 n2 starting
        task other t5 db.1 10.0.2.3 n2 serving
        sandbox c1 t1 net=10.0.1.3
        sandbox c2 - other=10.0.2.9
        ask c1 A web
        ask c1 A www
        ask c1 A web.front
        ask c1 A web-host
        ask c1 A zoo
        ask c1 A tasks.zoo.front
        ask c1 AAAA web
        ask c1 PTR web
        ask c1 ANY web
        ask c1 AXFR web
        ask c1 A db
        ask c1 A example.org
        ask c1 A tasks.nothing
        ask c1 AAAA tasks.nothing
        ask c1 A tasks.example.org
        ask c2 A db
        ask c2 A web
        ",
        &expect![[r#"
            overlay net vni 4097 peers {192.168.0.2} remotes {10.0.1.5: 192.168.0.2, 10.0.1.6: 192.168.0.2, 10.0.1.7: 192.168.0.2}
            overlay other vni 4097 peers {192.168.0.2} remotes {10.0.2.3: 192.168.0.2}
            sandbox c1 on ["net"] default route true vips {10.0.1.2: [10.0.1.3]}
            sandbox c2 on ["other"] default route false vips {10.0.2.2: [10.0.2.3]}
            c1 web: [10.0.1.2]
            c1 www: [10.0.1.2]
            c1 web.front: [10.0.1.2]
            c1 web-host: [10.0.1.3]
            c1 zoo: [10.0.1.5, 10.0.1.6]
            c1 tasks.zoo.front: [10.0.1.5, 10.0.1.6]
            c1 web: NoData
            c1 web: NoData
            c1 web: [10.0.1.2]
            c1 web: Refuse
            c1 db: NxDomain
            c1 example.org: Forward
            c1 tasks.nothing: NxDomain
            c1 tasks.nothing: NxDomain
            c1 tasks.example.org: Forward
            c2 db: [10.0.2.2]
            c2 web: NxDomain
        "#]],
    );
}

#[test]
fn addresses_have_names_on_own_networks() {
    check(
        "
        network net front 10.0.1.0/24
        network other back 10.0.2.0/24
        service net web 10.0.1.2
        task net t1 web.1 10.0.1.3 n2 starting
        task other t2 db.1 10.0.2.3 n2 serving
        sandbox c1 - net=10.0.1.9
        ask c1 PTR 3.1.0.10.in-addr.arpa
        ask c1 PTR 2.1.0.10.in-addr.arpa
        ask c1 A 3.1.0.10.in-addr.arpa
        ask c1 PTR 77.1.0.10.in-addr.arpa
        ask c1 PTR 3.2.0.10.in-addr.arpa
        ask c1 PTR 8.8.8.8.in-addr.arpa
        ask c1 PTR +3.1.0.10.in-addr.arpa
        ask c1 PTR 9.3.1.0.10.in-addr.arpa
        ",
        &expect![[r#"
            overlay net vni 4097 peers {192.168.0.2} remotes {10.0.1.3: 192.168.0.2}
            sandbox c1 on ["net"] default route true vips {10.0.1.2: []}
            c1 3.1.0.10.in-addr.arpa: Name("web.1.t1.front")
            c1 2.1.0.10.in-addr.arpa: Name("web.front")
            c1 3.1.0.10.in-addr.arpa: NoData
            c1 77.1.0.10.in-addr.arpa: NxDomain
            c1 3.2.0.10.in-addr.arpa: NxDomain
            c1 8.8.8.8.in-addr.arpa: Forward
            c1 +3.1.0.10.in-addr.arpa: Forward
            c1 9.3.1.0.10.in-addr.arpa: Forward
        "#]],
    );
}

#[test]
fn a_host_name_leads_to_its_task_unless_it_is_the_name_of_a_service() {
    check(
        "
        network net front 10.0.1.0/24
        service net web 10.0.1.2 www
        service net db -
        task net t1 web.1 10.0.1.3 n2 serving web-1 db
        task net t2 web.2 10.0.1.4 n2 serving Web
        task net t3 web.3 10.0.1.5 n2 serving shared WWW
        task net t4 web.4 10.0.1.6 n2 serving shared
        task net t5 web.5 10.0.1.7 n2 starting web-5
        sandbox c1 - net=10.0.1.9
        ask c1 A web-1
        ask c1 A web-1.front
        ask c1 A shared
        ask c1 A web
        ask c1 A www
        ask c1 A db
        ask c1 A web-5
        ",
        &expect![[r#"
            overlay net vni 4097 peers {192.168.0.2} remotes {10.0.1.3: 192.168.0.2, 10.0.1.4: 192.168.0.2, 10.0.1.5: 192.168.0.2, 10.0.1.6: 192.168.0.2, 10.0.1.7: 192.168.0.2}
            sandbox c1 on ["net"] default route true vips {10.0.1.2: [10.0.1.3, 10.0.1.4, 10.0.1.5, 10.0.1.6]}
            c1 web-1: [10.0.1.3]
            c1 web-1.front: [10.0.1.3]
            c1 shared: [10.0.1.5, 10.0.1.6]
            c1 web: [10.0.1.2]
            c1 www: [10.0.1.2]
            c1 db: NxDomain
            c1 web-5: NxDomain
        "#]],
    );
}

#[test]
fn the_mesh_leads_to_own_tasks_by_gateway_and_to_others_by_ingress() {
    check(
        "
        node n1
        node n2
        mesh t1 10.255.1.1 n1 serving
        mesh t2 10.255.1.2 n2 serving
        mesh t3 10.255.1.3 n2 draining
        mesh t4 10.255.1.4 n1 serving
        mesh t5 10.255.1.5 n9 serving
        port 8080 80 t1 t2 t3 t4 t5
        port 9090 90
        sandbox c1 t1
        sandbox c2 - 5000:5
        ",
        &expect![[r#"
            sandbox c1 on [] default route true vips {}
            sandbox c2 on [] default route true vips {}
            mesh 10.255.0.1 peers {10.255.0.2: 192.168.0.2}
              local {(10.255.1.1, Tcp, 80): 172.30.0.2} remote {10.255.1.2: 10.255.0.2, 10.255.1.3: 10.255.0.2}
              port 8080 -> [10.255.1.2, 172.30.0.2]:80
              port 9090 -> []:90
            host port 5000 -> (172.30.0.3, 5)
        "#]],
    );
}

#[test]
fn a_short_name_is_the_own_stacks_service_where_the_own_stack_has_one() {
    check(
        "
        network shared shared 10.0.1.0/24
        network one one_default 10.0.2.0/24
        service shared one_app 10.0.1.2 of one app
        service shared one_db 10.0.1.3 of one db
        service shared two_db 10.0.1.4 of two db
        service shared two_idle - of two only
        service shared one_idle - of one only
        service shared one_only 10.0.1.5 of one only2
        service one one_cache 10.0.2.2 of one cache
        service shared two_cache 10.0.1.6 of two cache
        task shared t1 one_app.1 10.0.1.11 n1 serving
        task shared t2 one_db.1 10.0.1.12 n1 serving
        task shared t3 two_db.1 10.0.1.13 n1 serving
        task shared t4 two_idle.1 10.0.1.14 n1 serving
        task one t5 one_cache.1 10.0.2.11 n1 serving
        task shared t6 two_cache.1 10.0.1.15 n1 serving
        sandbox c1 t1 shared=10.0.1.11 one=10.0.2.12
        sandbox c2 t3 shared=10.0.1.13
        sandbox c3 - shared=10.0.1.20
        ask c1 A db
        ask c1 A tasks.db
        ask c1 A db.shared
        ask c1 A two_db
        ask c1 A only
        ask c1 A cache
        ask c2 A db
        ask c2 A one_db
        ask c2 A only
        ask c2 A cache
        ask c3 A db
        ",
        &expect![[r#"
            overlay one vni 4097 peers {} remotes {}
            overlay shared vni 4097 peers {} remotes {}
            sandbox c1 on ["shared", "one"] default route true vips {10.0.1.2: [10.0.1.11], 10.0.1.3: [10.0.1.12], 10.0.1.4: [10.0.1.13], 10.0.1.5: [], 10.0.1.6: [10.0.1.15], 10.0.2.2: [10.0.2.11]}
            sandbox c2 on ["shared"] default route true vips {10.0.1.2: [10.0.1.11], 10.0.1.3: [10.0.1.12], 10.0.1.4: [10.0.1.13], 10.0.1.5: [], 10.0.1.6: [10.0.1.15]}
            sandbox c3 on ["shared"] default route true vips {10.0.1.2: [10.0.1.11], 10.0.1.3: [10.0.1.12], 10.0.1.4: [10.0.1.13], 10.0.1.5: [], 10.0.1.6: [10.0.1.15]}
            c1 db: [10.0.1.3]
            c1 tasks.db: [10.0.1.12]
            c1 db.shared: [10.0.1.3]
            c1 two_db: [10.0.1.4]
            c1 only: NxDomain
            c1 cache: [10.0.2.2]
            c2 db: [10.0.1.4]
            c2 one_db: [10.0.1.3]
            c2 only: [10.0.1.14]
            c2 cache: [10.0.1.6]
            c3 db: [10.0.1.3, 10.0.1.4]
        "#]],
    );
}

#[test]
fn questions_that_are_not_ours_go_to_whom_the_container_names_and_from_inside_to_nobody() {
    check(
        "
        network net front 10.0.1.0/24
        network in back 10.0.2.0/24 internal
        sandbox c1 - net=10.0.1.3 in=10.0.2.3
        sandbox c2 - in=10.0.2.4
        sandbox c3 - in=10.0.2.5 dns=10.0.2.9
        ask c1 A example.org
        ask c2 A example.org
        ask c2 PTR 8.8.8.8.in-addr.arpa
        ask c2 A example
        ask c3 A example.org
        ",
        &expect![[r#"
            overlay in vni 4097 peers {} remotes {}
            overlay net vni 4097 peers {} remotes {}
            sandbox c1 on ["net", "in"] default route true vips {}
            sandbox c2 on ["in"] default route false vips {}
            sandbox c3 on ["in"] default route false vips {}
            c1 example.org: Forward
            c2 example.org: Fail
            c2 8.8.8.8.in-addr.arpa: Fail
            c2 example: NxDomain
            c3 example.org: Forward
        "#]],
    );
}

/// Its kernel may carry connections all the while: replies find their way back to it, and what is
/// open to its tasks goes on.
#[test]
fn a_node_whose_tasks_serve_no_longer_keeps_its_place() {
    check(
        "
        network net front 10.0.1.0/24
        service net web 10.0.1.2
        node n1
        node n2
        task net t2 web.1 10.0.1.3 n2 draining
        mesh t2 10.255.1.2 n2 draining
        port 8080 80 t2
        sandbox c1 - net=10.0.1.4
        ",
        &expect![[r#"
            overlay net vni 4097 peers {192.168.0.2} remotes {10.0.1.3: 192.168.0.2}
            sandbox c1 on ["net"] default route true vips {10.0.1.2: []}
            mesh 10.255.0.1 peers {10.255.0.2: 192.168.0.2}
              local {} remote {10.255.1.2: 10.255.0.2}
              port 8080 -> []:80
        "#]],
    );
}

#[test]
fn a_node_that_is_not_in_the_mesh_has_host_ports_only() {
    check(
        "
        node n2
        mesh t2 10.255.1.2 n2 serving
        port 8080 80 t2
        sandbox c1 - 5000:5
        ",
        &expect![[r#"
            sandbox c1 on [] default route true vips {}
            host port 5000 -> (172.30.0.2, 5)
        "#]],
    );
}

#[test]
fn names_have_addresses_of_the_families_that_their_networks_have() {
    check(
        "
        network both front 10.0.1.0/24+fd00:1::/64
        network six back fd00:2::/64
        service both web 10.0.1.2+fd00:1::2
        service both zoo dnsrr
        service six db fd00:2::2
        task both t1 web.1 10.0.1.3+fd00:1::3 n2 serving
        task both t2 web.2 10.0.1.4+fd00:1::4 n1 serving
        task both t3 zoo.1 10.0.1.5 n2 serving
        task six t4 db.1 fd00:2::3 n2 serving
        sandbox c2 t2 both=10.0.1.4+fd00:1::4 six=fd00:2::9
        ask c2 A web
        ask c2 AAAA web
        ask c2 ANY web
        ask c2 A tasks.web
        ask c2 AAAA tasks.web
        ask c2 AAAA zoo
        ask c2 A db
        ask c2 AAAA db
        ask c2 AAAA nothing
        ask c2 PTR 3.1.0.10.in-addr.arpa
        ask c2 PTR 3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa
        ask c2 PTR 2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.0.0.0.0.0.d.f.ip6.arpa
        ask c2 AAAA 3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa
        ask c2 PTR f.f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa
        ask c2 PTR 1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa
        ask c2 PTR 0.0.3.ip6.arpa
        ",
        &expect![[r#"
            overlay both vni 4097 peers {192.168.0.2} remotes {10.0.1.3, fd00:1::3: 192.168.0.2, 10.0.1.5: 192.168.0.2}
            overlay six vni 4097 peers {192.168.0.2} remotes {fd00:2::3: 192.168.0.2}
            sandbox c2 on ["both", "six"] default route true vips {10.0.1.2: [10.0.1.3, 10.0.1.4], fd00:1::2: [fd00:1::3, fd00:1::4], fd00:2::2: [fd00:2::3]}
            c2 web: [10.0.1.2]
            c2 web: [fd00:1::2]
            c2 web: [10.0.1.2, fd00:1::2]
            c2 tasks.web: [10.0.1.3, 10.0.1.4]
            c2 tasks.web: [fd00:1::3, fd00:1::4]
            c2 zoo: NoData
            c2 db: NoData
            c2 db: [fd00:2::2]
            c2 nothing: NxDomain
            c2 3.1.0.10.in-addr.arpa: Name("web.1.t1.front")
            c2 3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa: Name("web.1.t1.front")
            c2 2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.0.0.0.0.0.d.f.ip6.arpa: Name("db.back")
            c2 3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa: NoData
            c2 f.f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa: NxDomain
            c2 1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa: Forward
            c2 0.0.3.ip6.arpa: Forward
        "#]],
    );
}

#[test]
fn the_mesh_has_addresses_of_both_families() {
    check(
        "
        node n1 10.255.0.1+fd00:255::1
        node n2 10.255.0.2+fd00:255::2
        mesh t1 10.255.1.2+fd00:255::102 n1 serving
        mesh t2 10.255.1.3+fd00:255::103 n2 serving
        port 8080 80 t1 t2
        sandbox c1 t1
        ",
        &expect![[r#"
            sandbox c1 on [] default route true vips {}
            mesh 10.255.0.1, fd00:255::1 peers {10.255.0.2, fd00:255::2: 192.168.0.2}
              local {(10.255.1.2, Tcp, 80): 172.30.0.2} remote {10.255.1.3, fd00:255::103: 10.255.0.2, fd00:255::2}
              port 8080 -> [fd00:255::103, 172.30.0.2, 10.255.1.3]:80
        "#]],
    );
}

#[test]
fn a_network_that_is_not_known_yet_is_left_out() {
    check(
        "
        sandbox c1 t1 net=10.0.1.3
        ask c1 A web
        ask c1 PTR 3.1.0.10.in-addr.arpa
        ",
        &expect![[r#"
            sandbox c1 on [] default route true vips {}
            c1 web: NxDomain
            c1 3.1.0.10.in-addr.arpa: Forward
        "#]],
    );
}

#[test]
fn tunnels_have_their_port_without_a_place_in_the_mesh() {
    let here = Here { data_path_port: 7789, ..Here::default() };
    assert_eq!(project(&Knowledge::default(), &here).desired.mesh.port, 7789);
}
