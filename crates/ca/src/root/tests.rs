use super::*;
use crate::clock::now;
use proptest::prelude::*;
use types::Cluster;

const DAY: Duration = Duration::from_hours(24);

fn cluster() -> Cluster {
    let root_ca = Authority::create(now()).unwrap();
    Cluster { id: "c".into(), root_ca, ..Cluster::default() }
}

fn peer(node: usize) -> Peer {
    let node = node.to_string().as_str().into();
    Peer { node, role: NodeRole::Worker, cluster: "c".into() }
}

fn begin(cluster: &mut Cluster) {
    let new = Authority::create(now()).unwrap();
    cluster.root_rotation = Some(rotate(&cluster.root_ca, new, now()).unwrap());
}

fn finish(cluster: &mut Cluster) {
    let RootRotation { certificate, key, .. } = cluster.root_rotation.take().unwrap();
    cluster.root_ca = RootCa { certificate, key };
}

fn join(cluster: &Cluster, node: usize) -> Identity {
    let request = Identity::generate().unwrap();
    let signed = sign(cluster, &request, node);
    request.accept(&signed, &cluster.roots()).unwrap()
}

fn sign(cluster: &Cluster, request: &crate::Request, node: usize) -> String {
    Authority::of(cluster).unwrap().sign(request.csr(), &peer(node), DAY, now()).unwrap()
}

fn renew(cluster: &Cluster, identity: &Identity, node: usize) {
    let request = Identity::generate().unwrap();
    let signed = sign(cluster, &request, node);
    identity.renew(request, &signed, &cluster.roots()).unwrap();
}

fn chain(identity: &Identity) -> Vec<CertificateDer<'static>> {
    certificates(&identity.certificate()).unwrap()
}

#[test]
fn what_the_next_root_signs_is_trusted_by_whoever_knows_either_root() {
    let mut cluster = cluster();
    let old = cluster.root_ca.certificate.clone();
    let before = join(&cluster, 1);
    begin(&mut cluster);
    let (new, both) = (cluster.wanted_root().to_owned(), cluster.roots());
    let after = join(&cluster, 2);
    let trusts = |roots: &str, node: &Identity| {
        Roots::parse(roots).unwrap().check(&chain(node), now()).is_ok()
    };
    let table = [&old, &new, &both].map(|roots| (trusts(roots, &before), trusts(roots, &after)));
    assert_eq!(table, [(true, true), (false, true), (true, true)]);
    assert_eq!(before.issuer(), issuer(&old).unwrap());
    assert_eq!(after.issuer(), issuer(&new).unwrap());
    assert_ne!(before.issuer(), after.issuer());
    // Nobody who trusts the new one alone would know it.
    assert!(before.trust(&new).is_err());
    assert_eq!((before.trust(&both).unwrap(), before.trust(&both).unwrap()), (true, false));
    assert!(after.trust(&new).unwrap());
}

/// What openssl makes: other kinds of text in the name than this program's.
#[test]
fn a_root_that_a_user_gives_is_taken_as_it_is_or_refused_in_words() {
    let old = Authority::create(now()).unwrap();
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let root = |years: u64, is_ca: IsCa| {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let country = DnValue::PrintableString("DE".try_into().unwrap());
        params.distinguished_name.push(DnType::CountryName, country);
        params.distinguished_name.push(DnType::CommonName, "Ours");
        params.is_ca = is_ca;
        let life = Duration::from_hours(years * 366 * 24);
        (params.not_before, params.not_after) = validity(now(), life).unwrap();
        params.self_signed(&key).unwrap().pem()
    };
    let ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let (good, key) = (root(2, ca), key.serialize_pem());
    let new = given(&format!("Ours:\n{good}"), &key, now()).unwrap();
    assert_eq!(new.certificate, good, "what stands around it is left out");
    rotate(&old, new, now()).unwrap();

    let why = |certificate: &str, key: &str| match given(certificate, key, now()) {
        Err(Error::Root(why)) => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(why(&root(0, ca), &key), "CA certificate expires too soon");
    assert_eq!(why(&root(2, IsCa::NoCa), &key), "the desired certificate is not a CA's");
    assert_eq!(why("nonsense", &key), "could not parse the desired CA certificate");
    let two = [good.as_str(), &good].concat();
    assert!(why(&two, &key).ends_with("cannot contain multiple certificates"));
    assert!(why(&good, &old.key).starts_with("certificate key mismatch"));
}

/// What happens to a cluster of three nodes.
#[derive(Clone, Debug)]
enum Step {
    /// A rotation begins, or another one takes its place.
    Rotate,
    /// Back to the root of before.
    Abort,
    /// A node hears of the roots.
    Learn(usize),
    /// A node gets a certificate.
    Renew(usize),
    /// A node starts anew with what is on its disk.
    Restart(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => Just(Step::Rotate),
        1 => Just(Step::Abort),
        4 => (0..3_usize).prop_map(Step::Learn),
        8 => (0..3_usize).prop_map(Step::Renew),
        1 => (0..3_usize).prop_map(Step::Restart),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// The new root takes the old one's place once all have a certificate by it, whatever they have
    /// heard of the roots.
    #[test]
    fn through_all_rotations_every_node_trusts_every_other_one(steps in steps()) {
        let mut cluster = cluster();
        let disk = tempfile::tempdir().unwrap();
        let mut nodes: Vec<Identity> = (0..3).map(|node| join(&cluster, node)).collect();
        for step in steps {
            match step {
                Step::Rotate => begin(&mut cluster),
                Step::Abort => cluster.root_rotation = None,
                Step::Learn(node) => drop(nodes[node].trust(&cluster.roots()).unwrap()),
                Step::Renew(node) => renew(&cluster, &nodes[node], node),
                Step::Restart(node) => {
                    let none = crate::Secrets::default();
                    nodes[node].save(disk.path(), &none, &none).unwrap();
                    nodes[node] = Identity::load(disk.path(), None).unwrap().unwrap().0;
                }
            }
            let wanted = issuer(cluster.wanted_root()).unwrap();
            let all = nodes.iter().all(|node| node.issuer() == wanted);
            if all && cluster.root_rotation.is_some() {
                finish(&mut cluster);
            }
            for (one, other) in nodes.iter().flat_map(|one| nodes.iter().map(move |it| (one, it))) {
                prop_assert!(one.trusts(&chain(other), now()));
            }
        }
    }
}
