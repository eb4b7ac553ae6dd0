use crate::oci::{self, Descriptor};
use crate::pull::{config, manifest};
use crate::registry::{Source, sources};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// More than anybody reads of it.
const ENDLESS: usize = 64 << 20;
const READ_MAX: usize = 16 << 20;

/// A registry that does not mean well.
struct Registry {
    address: String,
    sent: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

/// The status and the headers of an answer, and what follows.
type Answer = (String, Body);

enum Body {
    Text(&'static str),
    /// This, again and again.
    Endless(&'static [u8]),
}

/// What is said to a request.
type Says = fn(path: &str, head: &str, address: &str) -> Answer;

fn ok(body: Body) -> Answer {
    ("200 OK\r\n".to_owned(), body)
}

fn wants_token(address: &str) -> Answer {
    let realm = format!("Bearer realm=\"http://{address}/token\",service=\"s\"");
    (format!("401 Unauthorized\r\nWww-Authenticate: {realm}\r\n"), Body::Text(""))
}

impl Registry {
    async fn start(says: Says) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, sent) =
            (listener.local_addr().unwrap().to_string(), Arc::<AtomicUsize>::default());
        let mut serving = JoinSet::new();
        let (own, count) = (address.clone(), Arc::clone(&sent));
        serving.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let _it_hangs_up = answer(stream, (says, &own), &count).await;
            }
        });
        Self { address, sent, _serving: serving }
    }

    fn source(&self) -> Source {
        let image = engine::Reference::parse(&format!("{}/image", self.address)).unwrap();
        sources(image.parts(), &[]).unwrap().pop().unwrap()
    }

    fn check(&self, refusal: &str, wanted: &str) {
        assert!(refusal.contains(wanted), "{refusal}");
        let sent = self.sent.load(Ordering::Relaxed);
        assert!(sent < READ_MAX, "{sent} bytes were sent until it was refused");
    }
}

async fn answer(
    mut stream: TcpStream,
    (says, address): (Says, &str),
    sent: &AtomicUsize,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    // Of what is posted it reads as much as it is told.
    let text = String::from_utf8_lossy(&head).to_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
    for _ in 0..length.map_or(0, |length| length.parse::<usize>().unwrap()) {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head);
    let (said, body) = says(head.split(' ').nth(1).unwrap(), &head, address);
    stream.write_all(format!("HTTP/1.1 {said}Connection: close\r\n\r\n").as_bytes()).await?;
    match body {
        Body::Text(text) => stream.write_all(text.as_bytes()).await?,
        Body::Endless(piece) => {
            let block = piece.repeat(4096 / piece.len());
            for _ in 0..ENDLESS / block.len() {
                stream.write_all(&block).await?;
                sent.fetch_add(block.len(), Ordering::Relaxed);
            }
        }
    }
    stream.shutdown().await
}

#[tokio::test]
async fn an_endless_manifest_is_refused_before_it_is_read() {
    let registry = Registry::start(|path, _, _| match path {
        "/v2/" => ok(Body::Text("")),
        _ => ok(Body::Endless(b" ")),
    })
    .await;
    let source = registry.source();
    let refused = manifest(&source, &source.reference).await.unwrap_err();
    registry.check(&refused.to_string(), "its manifest is too large");
}

#[tokio::test]
async fn a_configuration_is_no_larger_than_its_manifest_says() {
    let registry = Registry::start(|path, _, _| match path {
        "/v2/" => ok(Body::Text("")),
        _ => ok(Body::Endless(b" ")),
    })
    .await;
    let descriptor = Descriptor::new(oci::CONFIG, b"{}");
    let refused = config(&registry.source(), &descriptor).await.unwrap_err();
    registry.check(&refused.to_string(), "larger than its manifest says");
    let climbing = Descriptor { digest: "sha256:../../x".to_owned(), ..descriptor };
    let refused = config(&registry.source(), &climbing).await.unwrap_err();
    registry.check(&refused.to_string(), "is no sha256 digest");
}

#[tokio::test]
async fn an_endless_token_and_an_endless_refusal_are_not_read() {
    let registry = Registry::start(|path, _, address| match path {
        "/v2/" => wants_token(address),
        _ => ok(Body::Endless(b" ")),
    })
    .await;
    let source = registry.source();
    let refused = manifest(&source, &source.reference).await.unwrap_err();
    registry.check(&refused.to_string(), "its token is too long");

    let registry = Registry::start(|path, _, _| match path {
        "/v2/" => ok(Body::Text("")),
        _ => ("404 Not Found\r\n".to_owned(), Body::Endless(b" ")),
    })
    .await;
    let source = registry.source();
    let refused = manifest(&source, &source.reference).await.unwrap_err();
    registry.check(&refused.to_string(), "manifest unknown");
}

/// Each token of this registry is good for one request.
fn once(path: &str, head: &str, address: &str) -> Answer {
    static GIVEN: AtomicUsize = AtomicUsize::new(0);
    static USED: AtomicUsize = AtomicUsize::new(0);
    const TOKENS: [&str; 3] =
        [r#"{"token":"T1"}"#, r#"{"access_token":"T2"}"#, r#"{"token":"none"}"#];
    if path == "/token?scope=repository%3Aimage%3Apull&service=s" {
        // YWxpY2U6c2VjcmV0: alice:secret
        assert!(head.to_lowercase().contains("authorization: basic ywxpy2u6c2vjcmv0"), "{head}");
        return ok(Body::Text(TOKENS[GIVEN.fetch_add(1, Ordering::Relaxed).min(2)]));
    }
    let next = format!("authorization: Bearer T{}", USED.load(Ordering::Relaxed) + 1);
    if path == "/v2/image/manifests/latest" && head.contains(&next) {
        USED.fetch_add(1, Ordering::Relaxed);
        return ok(Body::Text("a manifest"));
    }
    wants_token(address)
}

#[tokio::test]
async fn a_token_is_fetched_and_another_one_where_it_has_expired() {
    let registry = Registry::start(once).await;
    let mut source = registry.source();
    let credentials = engine::Credentials {
        username: "alice".to_owned(),
        password: "secret".to_owned(),
        identity_token: String::new(),
    };
    source.log_in(Some(&credentials));
    for _ in 0..2 {
        let (content, _) = manifest(&source, &source.reference).await.unwrap();
        assert_eq!(content, b"a manifest");
    }
    let refused = manifest(&source, &source.reference).await.unwrap_err();
    assert!(refused.to_string().contains("pull access denied"), "{refused}");
}

/// It exchanges one identity token for tokens, and knows no passwords.
fn exchanges(path: &str, head: &str, address: &str) -> Answer {
    let (front, form) = head.split_once("\r\n\r\n").unwrap();
    if path == "/token" {
        assert!(front.starts_with("POST ") && !front.to_lowercase().contains("authorization"));
        assert!(front.to_lowercase().contains("content-type: application/x-www-form-urlencoded"));
        let wanted = "scope=repository%3Aimage%3Apull&service=s&client_id=docker\
                      &grant_type=refresh_token&refresh_token=an%2Fidentity";
        return if form == wanted {
            ok(Body::Text(r#"{"access_token":"T","expires_in":60}"#))
        } else {
            ("401 Unauthorized\r\n".to_owned(), Body::Text(""))
        };
    }
    if path == "/v2/image/manifests/latest" && front.contains("authorization: Bearer T") {
        return ok(Body::Text("a manifest"));
    }
    wants_token(address)
}

#[tokio::test]
async fn an_identity_token_is_exchanged_for_a_token() {
    let registry = Registry::start(exchanges).await;
    let asks = async |identity_token: &str| {
        let mut source = registry.source();
        let identity_token = identity_token.to_owned();
        source.log_in(Some(&engine::Credentials { identity_token, ..Default::default() }));
        manifest(&source, &source.reference).await.map(|(content, _)| content)
    };
    assert_eq!(asks("an/identity").await.unwrap(), b"a manifest");
    let refused = asks("another").await.unwrap_err();
    assert!(refused.to_string().contains("pull access denied"), "{refused}");
}
