//! TLS to clients, to engines and to operators, with certificates of the test's own.

use crate::certificates::{Authority, Terminator, client, shown_by};
use crate::gateway::{Answer, Caller, Front, HUNG, engine, whole};
use crate::hostile::{Conduct, Hostile, WELL};
use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use llmd_bodies::gateway::{EndpointConfig, GatewayConfig, GatewayServer, ReloadError};
use llmd_bodies::tls::{ClientTls, ClientTlsConfig, ServerTlsConfig};
use rcgen::SanType;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

type Broken = Box<dyn std::error::Error + Send + Sync>;

fn completion() -> Value {
    json!({"prompt": [1, 2, 3], "max_tokens": 4, "stream": true})
}

fn request(path: &str, body: Option<&Value>) -> Request<Full<Bytes>> {
    let body = body.map(Value::to_string);
    Request::builder()
        .method(if body.is_some() { "POST" } else { "GET" })
        .uri(path)
        .header("host", "localhost")
        .header("x-llmd-explain", "1")
        .body(Full::from(body.unwrap_or_default()))
        .unwrap()
}

/// A request on a connection of its own; also what the server showed.
async fn ask(
    address: SocketAddr,
    tls: &ClientTls,
    path: &str,
    body: Option<&Value>,
) -> Result<(Answer, Vec<u8>), Broken> {
    let wire = tls.connect(TcpStream::connect(address).await?, "localhost").await?;
    let shown = shown_by(&wire);
    let (mut sender, connection) = http1::handshake(TokioIo::new(wire)).await?;
    tokio::spawn(connection);
    let response = sender.send_request(request(path, body)).await?;
    Ok((whole(response).await, shown))
}

async fn start(config: GatewayConfig) -> GatewayServer {
    tokio::task::spawn_blocking(|| GatewayServer::start(config).unwrap()).await.unwrap()
}

/// A gateway that speaks TLS to its clients, without engines.
fn config(tls: ServerTlsConfig) -> GatewayConfig {
    let mut config = GatewayConfig {
        listen: "127.0.0.1:0".into(),
        threads: 1,
        tls: Some(tls),
        ..Default::default()
    };
    config.health.interval_ms = 0;
    config
}

async fn until_ready(server: &GatewayServer, engines: usize) {
    let joining = async {
        while server.gateway().router().endpoints().len() < engines {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(HUNG, joining).await.expect("the engines never joined");
}

/// A counter of a gateway that speaks TLS.
async fn counter(address: SocketAddr, tls: &ClientTls, series: &str) -> f64 {
    let page = ask(address, tls, "/metrics", None).await.unwrap().0.text;
    let line = page.lines().find(|line| line.starts_with(&format!("llmd_gateway_{series} ")));
    line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_passes_byte_for_byte_through_tls_on_both_sides() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let engine = Hostile::start(Conduct::Well).await;
    let secured = Terminator::start(engine.address, &theirs.server("engine")).await;
    let mut config = config(ours.server("gateway"));
    config.endpoints = vec![EndpointConfig::new(secured.url())];
    config.upstream_tls = theirs.client();
    let server = start(config).await;
    assert!(server.url().starts_with("https://"), "{}", server.url());
    until_ready(&server, 1).await;
    let tls = client(&ours.client());
    let (answer, _) =
        ask(server.local_addr(), &tls, "/v1/completions", Some(&completion())).await.unwrap();
    assert_eq!((answer.status, answer.text), (StatusCode::OK, WELL.concat()));
    assert_eq!(answer.headers["x-llmd-endpoint"], secured.url());
    // Who speaks no TLS is not answered, and costs only its connection.
    let mut plain = TcpStream::connect(server.local_addr()).await.unwrap();
    plain.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut said = Vec::new();
    let _ = plain.read_to_end(&mut said).await;
    assert!(!said.starts_with(b"HTTP"), "{said:?}");
    assert_eq!(counter(server.local_addr(), &tls, "failed_handshakes_total").await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_is_agreed_on_in_the_handshake() {
    let authority = Authority::new();
    let engine = engine(|_| {}).await;
    let mut config = config(authority.server("gateway"));
    config.endpoints = vec![EndpointConfig::new(engine.url())];
    let server = start(config).await;
    until_ready(&server, 1).await;
    let mut offered = (*client(&authority.client()).config().unwrap()).clone();
    offered.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let tcp = TcpStream::connect(server.local_addr()).await.unwrap();
    let name = "localhost".try_into().unwrap();
    let stream = TlsConnector::from(Arc::new(offered)).connect(name, tcp).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..3 {
        let mut request = request("/v1/completions", Some(&completion()));
        *request.uri_mut() = "https://localhost/v1/completions".parse().unwrap();
        let answer = whole(sender.send_request(request).await.unwrap()).await;
        assert!(answer.text.ends_with("data: [DONE]\n\n"), "{}", answer.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_not_who_it_should_be_is_named_with_the_reason() {
    let (theirs, others) = (Authority::new(), Authority::new());
    let inner = engine(|_| {}).await;
    let right = theirs.server("engine");
    let secured = Terminator::start(inner.local_addr(), &right).await;
    // It never joins one who believes others.
    let mut config = config(theirs.server("gateway"));
    config.tls = None;
    config.endpoints = vec![EndpointConfig::new(secured.url())];
    config.upstream_tls = others.client();
    config.hold_ms = 0;
    let server = start(config.clone()).await;
    let front = Front { caller: Caller::new(server.local_addr()), server };
    let said = async {
        loop {
            let answer = front.caller.complete(&completion()).await;
            assert_eq!(answer.status, 503);
            if answer.text.contains("UnknownIssuer") {
                return answer.text;
            }
        }
    };
    let said = tokio::time::timeout(HUNG, said).await.unwrap();
    assert!(said.contains(&secured.url()), "{said}");
    // One that had joined is refused when it shows something else, before it gets a request.
    config.upstream_tls = theirs.client();
    front.server.gateway().apply(config.clone()).unwrap();
    front.until(|front| front.ready() == 1).await;
    let expired = theirs.sign("expired", |it| it.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let name = "other.example".try_into().unwrap();
    let elsewhere =
        theirs.sign("elsewhere", |it| it.subject_alt_names = vec![SanType::DnsName(name)]);
    for (shown, reason) in [
        (expired.server(), "expired"),
        (others.server("engine"), "ca_file names the authorities that are believed"),
        (elsewhere.server(), "server_name says which name is expected"),
    ] {
        secured.show(&shown);
        let answer = front.caller.complete(&completion()).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (502, "engine_failed"));
        assert!(
            answer.text.contains(&secured.url()) && answer.text.contains(reason),
            "{}",
            answer.text
        );
    }
    assert_eq!(front.counter("gateway_refused_total{status=\"502\"}").await, 3.0);
    // Told what it is called, or to believe anybody, the gateway takes it.
    let server_name = Some("other.example".to_owned());
    let danger_accept_any_certificate = true;
    for tls in [
        ClientTlsConfig { server_name, ..theirs.client() },
        ClientTlsConfig { danger_accept_any_certificate, ..ClientTlsConfig::default() },
    ] {
        config.upstream_tls = tls;
        front.server.gateway().apply(config.clone()).unwrap();
        assert_eq!(front.caller.complete(&completion()).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_a_certificate_is_refused_where_one_is_asked_for() {
    let (ours, clients) = (Authority::new(), Authority::new());
    let mut server = ours.server("gateway");
    server.client_ca_file = Some(clients.ca_file.clone());
    let server = start(config(server)).await;
    let address = server.local_addr();
    let pair = clients.sign("somebody", |_| {});
    let known = ClientTlsConfig {
        cert_file: Some(pair.cert_file),
        key_file: Some(pair.key_file),
        ..ours.client()
    };
    let known = client(&known);
    assert!(ask(address, &client(&ours.client()), "/health", None).await.is_err());
    let pair = ours.sign("stranger", |_| {});
    let stranger = ClientTlsConfig {
        cert_file: Some(pair.cert_file),
        key_file: Some(pair.key_file),
        ..ours.client()
    };
    assert!(ask(address, &client(&stranger), "/health", None).await.is_err());
    assert_eq!(ask(address, &known, "/health", None).await.unwrap().0.status, 200);
    assert_eq!(counter(address, &known, "failed_handshakes_total").await, 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_asks_for_a_certificate_gets_the_gateway_s() {
    let (theirs, ours) = (Authority::new(), Authority::new());
    let inner = engine(|_| {}).await;
    let mut shown = theirs.server("engine");
    shown.client_ca_file = Some(ours.ca_file.clone());
    let secured = Terminator::start(inner.local_addr(), &shown).await;
    let pair = ours.sign("gateway", |_| {});
    let front = Front::of(&[secured.url()], |config| {
        config.upstream_tls = ClientTlsConfig {
            cert_file: Some(pair.cert_file),
            key_file: Some(pair.key_file),
            ..theirs.client()
        };
        // Probes go the same way.
        config.health.interval_ms = 10;
    })
    .await;
    for _ in 0..3 {
        assert_eq!(front.caller.complete(&completion()).await.status, 200);
    }
    assert_eq!(front.counter("gateway_ejections_total").await, 0.0);
    let series = format!("engine_connections_total{{engine=\"{}\"}}", secured.url());
    assert_eq!(front.counter(&series).await, 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_taken_up_under_load_and_nothing_is_lost() {
    let authority = Authority::new();
    let engine = engine(|_| {}).await;
    let mut config = config(authority.server("gateway"));
    config.endpoints = vec![EndpointConfig::new(engine.url())];
    let server = start(config.clone()).await;
    until_ready(&server, 1).await;
    let (address, tls) = (server.local_addr(), client(&authority.client()));
    let first = ask(address, &tls, "/health", None).await.unwrap().1;
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (tls, stop, answered) = (tls.clone(), Arc::clone(&stop), Arc::clone(&answered));
            tokio::spawn(async move {
                while !stop.load(SeqCst) {
                    let wanted = completion();
                    let asked = ask(address, &tls, "/v1/completions", Some(&wanted));
                    let (answer, _) = asked.await.unwrap();
                    assert!(answer.text.ends_with("data: [DONE]\n\n"), "{}", answer.text);
                    answered.fetch_add(1, SeqCst);
                }
            })
        })
        .collect();
    let more = |than: usize| {
        let answered = Arc::clone(&answered);
        async move {
            while answered.load(SeqCst) < than + 20 {
                tokio::task::yield_now().await;
            }
        }
    };
    more(0).await;
    // One that is open lives on.
    let wire = tls.connect(TcpStream::connect(address).await.unwrap(), "localhost").await.unwrap();
    let (mut old, connection) = http1::handshake(TokioIo::new(wire)).await.unwrap();
    tokio::spawn(connection);
    old.send_request(request("/health", None)).await.unwrap();
    authority.server("gateway");
    server.gateway().apply(config.clone()).unwrap();
    let second = ask(address, &tls, "/health", None).await.unwrap().1;
    assert_ne!(first, second);
    more(answered.load(SeqCst)).await;
    old.ready().await.unwrap();
    assert_eq!(old.send_request(request("/health", None)).await.unwrap().status(), 200);
    // A file that is none changes nothing, and is named.
    let cert_file = config.tls.as_ref().unwrap().cert_file.clone();
    std::fs::write(&cert_file, "nonsense").unwrap();
    let error = server.gateway().apply(config.clone()).unwrap_err();
    assert!(matches!(error, ReloadError::Settings(_)), "{error:?}");
    let said = error.to_string();
    assert!(said.contains("tls.cert_file") && said.contains(cert_file.to_str().unwrap()), "{said}");
    // Nor does one whose key is another's.
    authority.server("other");
    std::fs::copy(cert_file.with_file_name("other.pem"), &cert_file).unwrap();
    let said = server.gateway().apply(config.clone()).unwrap_err().to_string();
    assert!(said.contains("tls.key_file") && said.contains("its own key"), "{said}");
    assert_eq!(ask(address, &tls, "/health", None).await.unwrap().1, second);
    config.tls = None;
    assert!(matches!(server.gateway().apply(config), Err(ReloadError::NeedsRestart(_))));
    more(answered.load(SeqCst)).await;
    stop.store(true, SeqCst);
    for client in clients {
        client.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_never_ends_a_handshake_is_closed_and_holds_up_nobody() {
    let authority = Authority::new();
    let mut config = config(authority.server("gateway"));
    config.timeouts.client_head_ms = 300;
    let server = start(config).await;
    let (address, tls) = (server.local_addr(), client(&authority.client()));
    let mut slow = Vec::new();
    for count in 0..20 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The beginning of a hello, or nothing at all.
        stream.write_all(&[22, 3, 1, 2, 0, 1][..count % 7]).await.unwrap();
        slow.push(stream);
    }
    assert_eq!(ask(address, &tls, "/health", None).await.unwrap().0.status, 200);
    for mut stream in slow {
        let closed = tokio::time::timeout(HUNG, stream.read(&mut [0; 64])).await;
        assert!(matches!(closed.expect("it was kept"), Ok(0) | Err(_)));
    }
    assert_eq!(counter(address, &tls, "failed_handshakes_total").await, 20.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_api_has_a_certificate_of_its_own() {
    let authority = Authority::new();
    let mut config = config(authority.server("gateway"));
    config.admin.listen = Some("127.0.0.1:0".into());
    config.admin.tls = Some(authority.server("admin"));
    let server = start(config).await;
    let (address, tls) = (server.admin_addr().unwrap(), client(&authority.client()));
    assert_eq!(server.admin_url(), Some(format!("https://{address}")));
    let (answer, shown) = ask(address, &tls, "/endpoints", None).await.unwrap();
    assert_eq!(answer.json(), json!({"endpoints": []}));
    assert_ne!(ask(server.local_addr(), &tls, "/health", None).await.unwrap().1, shown);
}
