//! Bounded requests.

use crate::tls::{ClientTls, TlsError};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::{Request, StatusCode, Uri};
use hyper_rustls::{
    DefaultServerNameResolver, FixedServerNameResolver, HttpsConnector, ResolveServerName,
};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::RwLock;
use std::sync::Arc;
use std::time::Duration;

/// Idle connections are dropped before the servers' own keep-alive ends (uvicorn: 5 s), so that a
/// request never meets a connection that is being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a page could not be read.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Not an address that this client reaches.
    #[error("{url:?} is not a http:// or https:// URL with a host: {reason}")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No connection, or it broke off.
    #[error("{url} cannot be reached: {reason}")]
    Unreachable {
        /// Which page.
        url: String,
        /// What happened.
        reason: String,
    },
    /// No answer, or not all of it, in time.
    #[error("{url} did not answer within {} ms", timeout.as_millis())]
    Timeout {
        /// Which page.
        url: String,
        /// How long it was waited for.
        timeout: Duration,
    },
    /// An answer that is no success.
    #[error("{url} answered {status}")]
    Status {
        /// Which page.
        url: String,
        /// What it answered.
        status: StatusCode,
    },
    /// More than the limit.
    #[error("{url} sent more than the limit of {limit_bytes} bytes: the page was not used")]
    TooLarge {
        /// Which page.
        url: String,
        /// The limit.
        limit_bytes: usize,
    },
}

impl HttpError {
    /// Whether the server is there but has no such page.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Status { status, .. } if *status == StatusCode::NOT_FOUND)
    }
}

type Plain = Client<HttpConnector, Full<Bytes>>;
type Secure = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A client with a connection pool; clones share it. Needs a tokio runtime when it is used.
#[derive(Debug, Clone)]
pub struct HttpClient {
    plain: Plain,
    tls: Arc<RwLock<Tls>>,
}

#[derive(Debug, Default)]
struct Tls {
    settings: ClientTls,
    /// Made for the first page that needs it.
    client: Option<Secure>,
}

impl Default for HttpClient {
    fn default() -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_timer(TokioTimer::new())
            .build(connector());
        Self { plain: client, tls: Arc::default() }
    }
}

fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector
}

fn secure(settings: &ClientTls) -> Result<Secure, TlsError> {
    let names: Arc<dyn ResolveServerName + Send + Sync> = match settings.server_name() {
        Some(name) => Arc::new(FixedServerNameResolver::new(name.clone())),
        None => Arc::new(DefaultServerNameResolver::default()),
    };
    let mut tcp = connector();
    tcp.enforce_http(false);
    let connector = HttpsConnector::new(tcp, settings.config()?, true, names);
    Ok(Client::builder(TokioExecutor::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_timer(TokioTimer::new())
        .build(connector))
}

impl HttpClient {
    /// Reaches `https://` by other settings from now on, here and in all clones.
    pub fn set_tls(&self, settings: ClientTls) {
        *self.tls.write() = Tls { settings, client: None };
    }

    fn secure(&self) -> Result<Secure, TlsError> {
        if let Some(client) = &self.tls.read().client {
            return Ok(client.clone());
        }
        let mut tls = self.tls.write();
        let made = secure(&tls.settings)?;
        Ok(tls.client.insert(made).clone())
    }

    /// The body of `url`, at most `limit_bytes`, within `timeout`.
    ///
    /// # Errors
    /// [`HttpError`]; nothing of the body is kept then.
    pub async fn get(
        &self,
        url: &str,
        limit_bytes: usize,
        timeout: Duration,
    ) -> Result<Bytes, HttpError> {
        self.get_as(None, url, limit_bytes, timeout).await
    }

    /// The same for somebody with a bearer token, where one is given.
    ///
    /// # Errors
    /// [`HttpError`]; nothing of the body is kept then.
    pub async fn get_as(
        &self,
        token: Option<&str>,
        url: &str,
        limit_bytes: usize,
        timeout: Duration,
    ) -> Result<Bytes, HttpError> {
        let mut request = Request::get(parse(url)?);
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        self.within(timeout, url, request.body(Full::default()), limit_bytes).await
    }

    /// Sends `body` to `url`; the answer as [`get`](Self::get) has it.
    ///
    /// # Errors
    /// [`HttpError`].
    pub async fn post(
        &self,
        url: &str,
        content_type: &'static str,
        body: Bytes,
        limit_bytes: usize,
        timeout: Duration,
    ) -> Result<Bytes, HttpError> {
        let request = Request::post(parse(url)?).header(CONTENT_TYPE, content_type);
        self.within(timeout, url, request.body(Full::new(body)), limit_bytes).await
    }

    async fn within(
        &self,
        timeout: Duration,
        url: &str,
        request: hyper::http::Result<Request<Full<Bytes>>>,
        limit_bytes: usize,
    ) -> Result<Bytes, HttpError> {
        let request =
            request.map_err(|e| HttpError::Url { url: url.to_owned(), reason: e.to_string() })?;
        tokio::time::timeout(timeout, self.exchange(url, request, limit_bytes))
            .await
            .map_err(|_| HttpError::Timeout { url: url.to_owned(), timeout })?
    }

    async fn exchange(
        &self,
        url: &str,
        request: Request<Full<Bytes>>,
        limit_bytes: usize,
    ) -> Result<Bytes, HttpError> {
        let unreachable = |reason: String| HttpError::Unreachable { url: url.to_owned(), reason };
        let is_secure = request.uri().scheme_str() == Some("https");
        let answer = match is_secure {
            false => self.plain.request(request).await,
            true => {
                let client = self.secure().map_err(|error| unreachable(error.to_string()))?;
                client.request(request).await
            }
        };
        let response = answer.map_err(|e| unreachable(innermost(&e)))?;
        let status = response.status();
        if !status.is_success() {
            return Err(HttpError::Status { url: url.to_owned(), status });
        }
        match Limited::new(response.into_body(), limit_bytes).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(e) if e.is::<LengthLimitError>() => {
                Err(HttpError::TooLarge { url: url.to_owned(), limit_bytes })
            }
            Err(e) => Err(unreachable(innermost(&*e))),
        }
    }
}

fn parse(url: &str) -> Result<Uri, HttpError> {
    let refuse = |reason: &str| HttpError::Url { url: url.to_owned(), reason: reason.to_owned() };
    let uri: Uri = url.parse().map_err(|_| refuse("it cannot be parsed"))?;
    match uri.scheme_str() {
        Some("http" | "https") if uri.host().is_some_and(|host| !host.is_empty()) => Ok(uri),
        _ => Err(refuse("write it as http://host:port/path, or https://")),
    }
}

/// The cause at the end of the chain says what happened ("Connection refused").
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    const SECOND: Duration = Duration::from_secs(1);

    /// A server that sends `answer` to its first client and then, if `hold`, says nothing more.
    async fn server(answer: Vec<u8>, hold: bool) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/page", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            assert!(socket.read(&mut request).await.unwrap() > 0);
            // The client may hang up before it has read everything: that is what limits are for.
            let _ = socket.write_all(&answer).await;
            if hold {
                std::future::pending::<()>().await;
            }
        });
        url
    }

    fn page(body: &str) -> Vec<u8> {
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    #[tokio::test]
    async fn a_page_is_read() {
        let url = server(page("hello"), false).await;
        assert_eq!(HttpClient::default().get(&url, 100, SECOND).await.unwrap(), "hello");
    }

    #[tokio::test]
    async fn a_page_over_the_limit_is_refused_without_reading_it_all() {
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 50000000\r\n\r\n".to_vec();
        let url = server([head, vec![b'x'; 1 << 20]].concat(), true).await;
        let error = HttpClient::default().get(&url, 1 << 16, 10 * SECOND).await.unwrap_err();
        assert!(matches!(error, HttpError::TooLarge { limit_bytes: 65536, .. }), "{error}");
    }

    #[tokio::test]
    async fn a_server_that_hangs_costs_a_timeout() {
        let url = server(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf".to_vec(), true).await;
        let timeout = Duration::from_millis(50);
        let error = HttpClient::default().get(&url, 100, timeout).await.unwrap_err();
        assert!(matches!(error, HttpError::Timeout { .. }), "{error}");
    }

    #[tokio::test]
    async fn an_answer_that_is_no_success_is_an_error_that_says_so() {
        let url =
            server(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec(), false).await;
        let error = HttpClient::default().get(&url, 100, SECOND).await.unwrap_err();
        assert!(error.is_not_found());
        assert_eq!(error.to_string(), format!("{url} answered 404 Not Found"));
    }

    #[tokio::test]
    async fn what_cannot_be_reached_names_the_url() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let url = format!("http://{closed}/metrics");
        let error = HttpClient::default().get(&url, 100, SECOND).await.unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("{url} cannot be reached: Connection refused")),
            "{error}"
        );
        for bad in ["ftp://a/b", "nonsense", "http:///path", "https:///path"] {
            let error = HttpClient::default().get(bad, 100, SECOND).await.unwrap_err();
            assert!(matches!(error, HttpError::Url { .. }), "{error}");
        }
    }
}
